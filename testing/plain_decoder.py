"""A mask decoder small enough to check by hand, and a decoder service around it, in this process.

Its graphs run in ONNX Runtime like those of a real model. The formula is in `logits_of`; `refined` says what it comes
to after several clicks.
"""

import hashlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import onnx
from maskwire.v1 import types_pb2
from maskwire_core.config import DecoderSettings
from maskwire_core.models.decoder_bundle import BEST, GRAPHS, DecoderBundle, DecoderConfig
from maskwire_core.models.graph_archive import OnnxGraph
from maskwire_core.storage.embedding import Header, pack
from maskwire_core.storage.exports import publish_decoder
from maskwire_core.storage.store import Store
from maskwire_decoder.downloads import Downloads
from maskwire_decoder.images import Images
from maskwire_decoder.segmenter import Segmenter
from maskwire_decoder.service import DecoderService
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Clicks = Sequence[tuple[float, float, int]]
"""x and y in pixels of the image, and the label: 1 inside, 0 outside."""

WIDTH, HEIGHT = 120, 80
"""Size of the image that clicks are on, in pixels."""
INPUT_SIZE, MASK_SIZE = 64, 16
IOU = np.array([0.95, 0.8, 0.97, 0.9], np.float32)  # of the single mask and the three candidates
_BEST = 2
_SPREAD, _LIFT, _FLOOR, _FED_BACK = 60.0, 8.0, 3.0, 0.25

_CENTRES = ((np.arange(MASK_SIZE) + 0.5) * INPUT_SIZE / MASK_SIZE).astype(np.float32)


def logits_of(
    image: NDArray[np.float32],
    points: NDArray[np.float32],
    labels: NDArray[np.int64],
    candidate: int,
    mask: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Computes what the graphs compute: a hill at each positive click, a valley at each negative one.

    Args:
        image: SxS, the embedding.
        points: Nx2 in pixels of the model's input.
        labels: N, 1 positive, 0 negative; others have no effect.
        candidate: 0 for the single mask, 1 to 3 for a candidate, which is higher the larger the number.
        mask: SxS logits that are fed back, or None.

    Returns:
        SxS.
    """
    total = image - _FLOOR + 0.5 * candidate
    for (x, y), label in zip(points, labels, strict=True):
        if label in (0, 1):
            distance = (_CENTRES[None] - x) ** 2 + (_CENTRES[:, None] - y) ** 2
            total = total + (2 * label - 1) * _LIFT * np.exp(-distance / _SPREAD)
    return (total if mask is None else total + _FED_BACK * mask).astype(np.float32)


def logits_of_clicks(
    image: NDArray[np.float32], clicks: Clicks, candidate: int, mask: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """As `logits_of`, for clicks on an image of WIDTH x HEIGHT."""
    scale = np.array([INPUT_SIZE / WIDTH, INPUT_SIZE / HEIGHT], np.float32)
    places = np.array([click[:2] for click in clicks], np.float32).reshape(-1, 2) * scale
    return logits_of(image, places, np.array([click[2] for click in clicks], np.int64), candidate, mask)


def refined(image: NDArray[np.float32], clicks: Clicks) -> NDArray[np.float32]:
    """Computes the logits after clicks made one after another: the first gives the best of three candidates, each
    further one the single mask, given the logits before it."""
    logits = logits_of_clicks(image, clicks[:1], _BEST)
    for count in range(2, len(clicks) + 1):
        logits = logits_of_clicks(image, clicks[:count], 0, logits.clip(-32, 32))
    return logits


def logits_in(mask: types_pb2.Mask) -> NDArray[np.float32]:
    """Returns the fp32 logits of an answer, SxS."""
    return np.frombuffer(mask.logits.data, "<f4").reshape(MASK_SIZE, MASK_SIZE)


def bundle() -> DecoderBundle:
    """Makes the exported decoder."""
    click = ["tokens", "fine_1", "fine_0", "keys", "values", "queries"]
    graphs = {
        "image_fp32": _image(TensorProto.FLOAT, click),
        "image_fp16": _image(TensorProto.FLOAT16, click),
        "mask": _model(
            [
                _node("Mul", ["mask", _constant("share", _FED_BACK)], "part"),
                _node("Squeeze", ["part", _constant("first", [0])], "flat"),
                _node("Add", ["tokens", "flat"], "out"),
            ],
            {"tokens": _SQUARE, "mask": (TensorProto.FLOAT, [1, MASK_SIZE, MASK_SIZE])},
            {"out": _SQUARE},
        ),
        "click": _prompted(click),
        "refine": _prompted(click[:3]),
        "plain": _prompted(click[:3]),
    }
    assert set(graphs) == GRAPHS
    config = DecoderConfig("plain", "f" * 64, INPUT_SIZE, MASK_SIZE, False, 0.05, 0.98)
    return DecoderBundle(config, {name: OnnxGraph(model, ()) for name, model in graphs.items()}, {})


class Context:
    """What handlers ask of gRPC's context of a call."""

    def peer(self) -> str:
        return "test"

    def time_remaining(self) -> float | None:
        return None


class PlainDecoder:
    """A decoder service on a store.

    Args:
        store: Where embeddings are.
        settings: Settings of the decoder other than the defaults.

    Attributes:
        service: Its methods take requests and a `Context`.
        images: Where it finds images.
        segmenter: What the service uses.
    """

    def __init__(self, store: Store, **settings: Any) -> None:
        own = DecoderSettings(**{"workers": 2, "threads": 1, **settings})
        self.images = Images(own, store)
        self.segmenter = Segmenter(own, self.images, store)
        downloads = Downloads(own.downloads, self.images, store, None, self.segmenter.scheduler)
        self.service = DecoderService(self.segmenter, downloads)

    async def segment(self, request: Any) -> Any:
        return await self.service.Segment(request, Context())  # type: ignore[arg-type]

    def stream(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        return self.service.SegmentStream(requests, Context())  # type: ignore[arg-type]

    def generate(self, request: Any) -> AsyncIterator[Any]:
        return self.service.GenerateMasks(request, Context())  # type: ignore[arg-type]


def put_image(
    store: Store, image_id: str, values: NDArray[np.float32], width: int, height: int, namespace: str = "default"
) -> str:
    """Stores an embedding under a name, as an encoder does. Returns its content key."""
    made = bundle()
    publish_decoder(store, made)
    key = hashlib.sha256(image_id.encode() + values.tobytes()).hexdigest()
    header = Header(namespace, key, "plain", made.config.fingerprint, made.digest, height, width, "fp32", 0)
    store.put_embedding(namespace, key, pack(header, {"image": values}), 100)
    store.set_alias(namespace, image_id, key, 100)
    return key


_SQUARE = (TensorProto.FLOAT, [MASK_SIZE, MASK_SIZE])


def _constant(name: str, value: Any, dtype: Any = None) -> tuple[str, NDArray[Any]]:
    array = np.asarray(value)
    return name, array.astype(dtype or (np.int64 if array.dtype.kind == "i" else np.float32))


def _node(operator: str, inputs: list[Any], output: str, **attributes: Any) -> tuple[onnx.NodeProto, list[Any]]:
    """Makes a node; inputs are names, or constants from `_constant`."""
    constants = [each for each in inputs if isinstance(each, tuple)]
    names = [each[0] if isinstance(each, tuple) else each for each in inputs]
    return helper.make_node(operator, names, [output], **attributes), constants


def _model(nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, Any]) -> bytes:
    def infos(described: dict[str, Any]) -> list[Any]:
        return [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in described.items()]

    constants = {name: array for _, added in nodes for name, array in added}
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph([node for node, _ in nodes], "plain", infos(inputs), infos(outputs), initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _image(kind: int, outputs: list[str]) -> bytes:
    nodes = [_node("Cast", ["image"], name, to=TensorProto.FLOAT) for name in outputs]
    return _model(nodes, {"image": (kind, [MASK_SIZE, MASK_SIZE])}, dict.fromkeys(outputs, _SQUARE))


def _prompted(image_inputs: list[str]) -> bytes:
    def squared_distance(axis: int) -> list[Any]:
        letter, shape = "xy"[axis], [1, 1, MASK_SIZE] if axis == 0 else [1, MASK_SIZE, 1]
        return [
            _node("Gather", ["points", _constant(f"axis_{letter}", [axis])], f"column_{letter}", axis=1),
            _node("Unsqueeze", [f"column_{letter}", _constant("two", [2])], f"place_{letter}"),
            _node("Sub", [_constant(f"centres_{letter}", _CENTRES.reshape(shape)), f"place_{letter}"], f"d_{letter}"),
            _node("Mul", [f"d_{letter}", f"d_{letter}"], f"d2_{letter}"),
        ]

    one, zero = _constant("one", 1), _constant("zero", 0)
    nodes = [
        *squared_distance(0),
        *squared_distance(1),
        _node("Add", ["d2_x", "d2_y"], "d2"),
        _node("Div", ["d2", _constant("spread", -_SPREAD)], "exponent"),
        _node("Exp", ["exponent"], "bumps"),
        # 1 for positive clicks, -1 for negative ones, 0 for whatever else has a label
        _node("Equal", ["labels", one], "positive"),
        _node("Equal", ["labels", zero], "negative"),
        _node("Cast", ["positive"], "plus", to=TensorProto.FLOAT),
        _node("Cast", ["negative"], "minus", to=TensorProto.FLOAT),
        _node("Sub", ["plus", "minus"], "signs"),
        _node("Mul", ["signs", _constant("lift", _LIFT)], "lifts"),
        _node("Unsqueeze", ["lifts", _constant("axes", [1, 2])], "lifts_3d"),
        _node("Mul", ["bumps", "lifts_3d"], "hills"),
        _node("ReduceSum", ["hills", _constant("points_axis", [0])], "hill", keepdims=1),
        _node("Add", ["tokens", "hill"], "raised"),
        _node("Sub", ["raised", _constant("floor", _FLOOR)], "ground"),
        # each wanted mask is higher by half its number
        _node("Equal", ["masks", _constant("best_of", BEST)], "is_best"),
        _node("Where", ["is_best", _constant("best", _BEST), "masks"], "numbers"),
        _node("Cast", ["numbers"], "numbers_f", to=TensorProto.FLOAT),
        _node("Mul", ["numbers_f", _constant("half", 0.5)], "heights"),
        _node("Unsqueeze", ["heights", _constant("axes", [1, 2])], "heights_3d"),
        _node("Add", ["ground", "heights_3d"], "logits"),
        _node("Identity", [_constant("ious", IOU)], "iou"),
        _node("Identity", [_constant("scores", [5.0])], "object_score"),
    ]
    inputs = dict.fromkeys(image_inputs, _SQUARE) | {
        "points": (TensorProto.FLOAT, ["points", 2]),
        "labels": (TensorProto.INT64, ["points"]),
        "masks": (TensorProto.INT64, ["wanted"]),
    }
    outputs = {
        "logits": (TensorProto.FLOAT, ["wanted", MASK_SIZE, MASK_SIZE]),
        "iou": (TensorProto.FLOAT, [4]),
        "object_score": (TensorProto.FLOAT, [1]),
    }
    return _model(nodes, inputs, outputs)
