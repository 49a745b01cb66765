"""Builds an ONNX graph operator by operator."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import xxhash
from maskwire_core.models.graph_archive import OnnxGraph
from numpy.typing import NDArray
from onnx import TensorProto, helper

Shape = tuple[str, tuple[int | str, ...]]
"""Dtype and shape; a string in it is a size known only at run time."""

OPSET = 20
_IR_VERSION = 10
_DTYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "int16": TensorProto.INT16,
    "int64": TensorProto.INT64,
}
_MOST_INLINE = 64  # values of a constant inside the graph; larger ones are external, so that graphs share them


class Graph:
    """A graph under construction. A value is the name of a node's output or of an input; constants are arrays.

    Args:
        inputs: Dtype and shape of each input by name.

    Attributes:
        weights: External constants by name. The name depends on the content alone, so that graphs share them.
    """

    def __init__(self, inputs: Mapping[str, Shape]) -> None:
        self._inputs = [helper.make_tensor_value_info(name, _DTYPES[d], shape) for name, (d, shape) in inputs.items()]
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self.weights: dict[str, NDArray[Any]] = {}

    def add(self, operator: str, *inputs: str | NDArray[Any] | np.generic, **attributes: Any) -> str:
        """Adds a node with one output. Returns the output's name."""
        name = f"{operator}_{len(self._nodes)}"
        values = [value if isinstance(value, str) else self._constant(value) for value in inputs]
        self._nodes.append(helper.make_node(operator, values, [name], **attributes))
        return name

    def reshape(self, value: str, *shape: int) -> str:
        """Adds a reshape; 0 keeps the size of an axis, -1 takes what is left."""
        return self.add("Reshape", value, np.array(shape, np.int64))

    def finish(self, outputs: Mapping[str, Shape], **values: str) -> OnnxGraph:
        """Serializes the graph.

        Args:
            outputs: Dtype and shape of each output by name.
            values: The value of each output by name.
        """
        for name, value in values.items():
            self._nodes.append(helper.make_node("Identity", [value], [name]))
        described = [helper.make_tensor_value_info(name, _DTYPES[d], shape) for name, (d, shape) in outputs.items()]
        graph = helper.make_graph(self._nodes, "maskwire", self._inputs, described, list(self._constants.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION)
        return OnnxGraph(model.SerializeToString(deterministic=True), tuple(self.weights))

    def _constant(self, value: NDArray[Any] | np.generic) -> str:
        array = np.asarray(value, order="C")
        name = f"{array.dtype}_{'x'.join(map(str, array.shape))}_{xxhash.xxh3_64_hexdigest(array.data)}"
        if name not in self._constants:
            tensor = onnx.TensorProto(name=name, dims=array.shape, data_type=_DTYPES[str(array.dtype)])
            if array.size > _MOST_INLINE:
                self.weights[name] = array
                tensor.data_location = TensorProto.EXTERNAL
                tensor.external_data.add(key="location", value=name)
            else:
                tensor.raw_data = array.tobytes()
            self._constants[name] = tensor
        return name
