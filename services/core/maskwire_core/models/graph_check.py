"""Refuses exported graphs that would read files: whoever can write to the store can publish one.

An ONNX graph may name files that hold its constants, and ONNX Runtime opens those below the working directory. The
graphs of an encoder name no files: their large constants are given to the runtime by name, from the bundle. All else
that could name one is refused here, before a session is built.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from maskwire_core.errors import CorruptValue
from maskwire_core.models.graph_archive import OnnxGraph

_FieldType = descriptor_pb2.FieldDescriptorProto

# The parts of onnx.proto through which a graph can hold a constant, which decoders read without the package onnx:
# by message its fields, each with its number and its type.
SCHEMA: dict[str, dict[str, tuple[int, str]]] = {
    "ModelProto": {"graph": (7, "GraphProto"), "training_info": (20, "bytes*"), "functions": (25, "bytes*")},
    "GraphProto": {
        "node": (1, "NodeProto*"),
        "initializer": (5, "TensorProto*"),
        "sparse_initializer": (15, "bytes*"),
    },
    "NodeProto": {"op_type": (4, "string"), "domain": (7, "string"), "attribute": (5, "AttributeProto*")},
    "AttributeProto": {
        "t": (5, "TensorProto"),
        "g": (6, "GraphProto"),
        "tensors": (10, "TensorProto*"),
        "graphs": (11, "GraphProto*"),
        "sparse_tensor": (22, "bytes"),
        "sparse_tensors": (23, "bytes*"),
    },
    "TensorProto": {
        "name": (8, "string"),
        "external_data": (13, "StringStringEntryProto*"),
        "data_location": (14, "int32"),
    },
    "StringStringEntryProto": {"key": (1, "string"), "value": (2, "string")},
}
_SCALARS = {"bytes": _FieldType.TYPE_BYTES, "string": _FieldType.TYPE_STRING, "int32": _FieldType.TYPE_INT32}


def check_graph(graph: OnnxGraph) -> None:
    """Checks that ONNX Runtime finds all constants of a graph in the graph itself, or among its weights.

    Raises:
        CorruptValue: It does not, or the graph has something that no encoder writes.
    """
    try:
        model: Any = _model_class().FromString(graph.model)
    except DecodeError as error:
        raise CorruptValue(f"an exported graph is no ONNX model: {error}") from error
    if model.functions or model.training_info:
        raise CorruptValue("an exported graph has functions or training information")
    names = [tensor.name for tensor in model.graph.initializer]
    if len(set(names)) != len(names):
        raise CorruptValue("an exported graph has two constants of one name")
    given = set(graph.weights)
    for tensor in model.graph.initializer:
        # The location is not read, since the runtime is given a value under the name.
        is_given = [(entry.key, entry.value) for entry in tensor.external_data] == [("location", tensor.name)]
        if not (is_given and tensor.name in given):
            _refuse_external(tensor)
    for each in _graphs(model.graph):
        if each is not model.graph:
            for tensor in each.initializer:
                _refuse_external(tensor)
        if each.sparse_initializer:
            raise CorruptValue("an exported graph has sparse constants")
        for node in each.node:
            _check_node(node)


def _check_node(node: Any) -> None:
    if node.domain not in ("", "ai.onnx"):
        raise CorruptValue(f"an exported graph uses {node.op_type!r} of {node.domain!r}")
    for attribute in node.attribute:
        if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
            raise CorruptValue("an exported graph has sparse constants")
        for tensor in (attribute.t, *attribute.tensors):
            _refuse_external(tensor)


def _graphs(graph: Any) -> Iterator[Any]:
    """Yields a graph and those in its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from _graphs(inner)


def _refuse_external(tensor: Any) -> None:
    if tensor.data_location or tensor.external_data:
        raise CorruptValue(f"an exported graph names a file for its constant {tensor.name!r}")


@cache
def _model_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="maskwire/onnx_constants.proto", package="maskwire.onnx")
    for name, described in SCHEMA.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in described.items():
            repeated, base = kind.endswith("*"), kind.removesuffix("*")
            added = message.field.add(name=field, number=number)
            added.label = _FieldType.LABEL_REPEATED if repeated else _FieldType.LABEL_OPTIONAL
            if base in _SCALARS:
                added.type = _SCALARS[base]
            else:
                added.type, added.type_name = _FieldType.TYPE_MESSAGE, f".maskwire.onnx.{base}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("maskwire.onnx.ModelProto"))
