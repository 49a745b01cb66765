"""Exported decoders that would read files are refused."""

from typing import Any

import numpy as np
import onnx
import pytest
from maskwire_core.errors import CorruptValue
from maskwire_core.models.graph_archive import OnnxGraph
from maskwire_core.models.graph_check import SCHEMA, check_graph
from onnx import TensorProto, helper, numpy_helper

from testing.plain_decoder import bundle


def external(location: str = "secret.txt", name: str = "w") -> TensorProto:
    tensor = TensorProto(name=name, dims=[16], data_type=TensorProto.UINT8, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def given(name: str = "w") -> TensorProto:
    """As encoders write it: the value is in the bundle, under this name."""
    tensor = TensorProto(name=name, dims=[16], data_type=TensorProto.UINT8, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=name)
    return tensor


OUT = helper.make_tensor_value_info("o", TensorProto.UINT8, [16])


def graph(*nodes: onnx.NodeProto, initializers: Any = ()) -> onnx.GraphProto:
    return helper.make_graph(list(nodes) or [helper.make_node("Identity", ["w"], ["o"])], "g", [], [OUT], initializers)


def model(made: onnx.GraphProto, **fields: Any) -> onnx.ModelProto:
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], **fields)


def constant(tensor: TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["o"], value=tensor)


def nested(inner: onnx.GraphProto) -> onnx.GraphProto:
    branches = {"then_branch": graph(constant(numpy_helper.from_array(np.zeros(16, np.uint8)))), "else_branch": inner}
    return graph(helper.make_node("If", ["condition"], ["o"], **branches))


def sparse(tensor: TensorProto) -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(tensor, numpy_helper.from_array(np.arange(16), "indices"), [16])


def with_field(name: str, value: Any) -> onnx.ModelProto:
    made = model(graph(initializers=[numpy_helper.from_array(np.zeros(16, np.uint8), "w")]))
    getattr(made, name).append(value)
    return made


def located_only() -> TensorProto:
    tensor = external()
    tensor.ClearField("data_location")
    return tensor


REFUSED = {
    "an initializer": model(graph(initializers=[external()])),
    "an initializer of another file": model(graph(initializers=[external("w")])),
    "one that only says where": model(graph(initializers=[located_only()])),
    "memory of the process": model(graph(initializers=[external("*/_ORT_MEM_ADDR_/*")])),
    "one that is given twice": model(graph(initializers=[given(), external()])),
    "one that is not given": model(graph(constant(numpy_helper.from_array(np.zeros(16))), initializers=[given("v")])),
    "an attribute": model(graph(constant(external()))),
    "an initializer of a subgraph": model(nested(graph(initializers=[external()]))),
    "one of a subgraph that is given": model(nested(graph(initializers=[given()]))),
    "an attribute in a subgraph of a subgraph": model(nested(nested(graph(constant(external()))))),
    "a list of tensors": model(graph(helper.make_node("Anything", [], ["o"], values=[external(), external()]))),
    "a sparse attribute": model(graph(helper.make_node("Constant", [], ["o"], sparse_value=sparse(external())))),
    "another domain": model(graph(helper.make_node("EPContext", [], ["o"], domain="com.microsoft"))),
    "a function": with_field("functions", onnx.FunctionProto(name="f", node=[constant(external())])),
    "training": with_field("training_info", onnx.TrainingInfoProto(initialization=graph(initializers=[external()]))),
}


@pytest.mark.parametrize("made", REFUSED.values(), ids=REFUSED)
def test_what_names_a_file_is_refused(made: onnx.ModelProto) -> None:
    with pytest.raises(CorruptValue, match="an exported graph"):
        check_graph(OnnxGraph(made.SerializeToString(), ("w",)))


def test_sparse_initializers_are_refused() -> None:
    made = graph()
    made.sparse_initializer.append(sparse(external()))
    with pytest.raises(CorruptValue, match="sparse"):
        check_graph(OnnxGraph(model(made).SerializeToString(), ()))


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(CorruptValue, match="no ONNX model"):
        check_graph(OnnxGraph(b"\x3a\xff", ()))


def test_what_encoders_write_is_not() -> None:
    check_graph(OnnxGraph(model(graph(initializers=[given()])).SerializeToString(), ("w",)))
    for each in bundle().graphs.values():
        check_graph(each)


def test_the_schema_is_that_of_onnx_and_leads_to_every_constant() -> None:
    for name, described in SCHEMA.items():
        theirs = getattr(onnx, name).DESCRIPTOR.fields_by_name
        for field, (number, kind) in described.items():
            assert theirs[field].number == number
            of = theirs[field].message_type
            assert kind.removesuffix("*") in ("bytes", "string", "int32") or of.name == kind.removesuffix("*")
        # What could hold a tensor, at any depth, is either followed or refused.
        for field, theirs_field in theirs.items():
            assert field in described or not _holds_tensors(theirs_field.message_type, set()), (name, field)


def _holds_tensors(message: Any, seen: set[str]) -> bool:
    if message is None or message.name in seen:
        return False
    if message.name == "TensorProto":
        return True
    return any(_holds_tensors(field.message_type, seen | {message.name}) for field in message.fields)
