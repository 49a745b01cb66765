"""Writing an ONNX graph operator by operator."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import xxhash
from maskwire_core.models.decoder_bundle import DecoderGraph
from numpy.typing import NDArray
from onnx import TensorProto, helper

OPSET = 20
_IR_VERSION = 10
_DTYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "int64": TensorProto.INT64}
_SMALL = 64  # values; larger constants lie outside the graph, so that graphs share them


class Graph:
    """A graph in the making. Values are named by strings; arrays may stand for constants wherever a value may.

    Args:
        inputs: Name to dtype and shape; a string in a shape is a size that is known only at run time.

    Attributes:
        weights: Constants that lie outside the graph, by name. Equal ones have equal names, in other graphs too.
    """

    def __init__(self, inputs: Mapping[str, tuple[str, tuple[int | str, ...]]]) -> None:
        self._inputs = [helper.make_tensor_value_info(name, _DTYPES[d], shape) for name, (d, shape) in inputs.items()]
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self.weights: dict[str, NDArray[Any]] = {}

    def add(self, operator: str, *inputs: str | NDArray[Any] | np.generic, outputs: int = 1, **attributes: Any) -> str:
        """Adds a node. Returns the name of its (first) output."""
        names = [f"{operator}_{len(self._nodes)}_{index}" for index in range(outputs)]
        values = [value if isinstance(value, str) else self._constant(value) for value in inputs]
        self._nodes.append(helper.make_node(operator, values, names, **attributes))
        return names[0]

    def reshape(self, value: str, *shape: int) -> str:
        """To a shape; 0 keeps a size, -1 is what is left."""
        return self.add("Reshape", value, np.array(shape, np.int64))

    def finish(self, outputs: Mapping[str, tuple[str, tuple[int | str, ...]]], **values: str) -> DecoderGraph:
        """The graph, with some of its values as its outputs.

        Args:
            outputs: Name to dtype and shape.
            values: Name of each output to the value that it is.
        """
        for name, value in values.items():
            self._nodes.append(helper.make_node("Identity", [value], [name]))
        described = [helper.make_tensor_value_info(name, _DTYPES[d], shape) for name, (d, shape) in outputs.items()]
        graph = helper.make_graph(self._nodes, "maskwire", self._inputs, described, list(self._constants.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION)
        return DecoderGraph(model.SerializeToString(deterministic=True), tuple(self.weights))

    def _constant(self, value: NDArray[Any] | np.generic) -> str:
        array = np.asarray(value, order="C")
        name = f"{array.dtype}_{'x'.join(map(str, array.shape))}_{xxhash.xxh3_64_hexdigest(array.data)}"
        if name not in self._constants:
            if array.size > _SMALL:
                self.weights[name] = array
                self._constants[name] = _outside(name, array)
            else:
                self._constants[name] = helper.make_tensor(
                    name, _DTYPES[str(array.dtype)], array.shape, array.tobytes(), raw=True
                )
        return name


def _outside(name: str, array: NDArray[Any]) -> onnx.TensorProto:
    tensor = onnx.TensorProto(
        name=name, dims=array.shape, data_type=_DTYPES[str(array.dtype)], data_location=TensorProto.EXTERNAL
    )
    tensor.external_data.add(key="location", value=name)
    return tensor
