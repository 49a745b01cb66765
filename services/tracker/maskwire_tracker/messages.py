"""Turns the messages of tracker.proto into values, and values into messages."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from maskwire.v1 import tracker_pb2 as pb
from maskwire.v1 import types_pb2
from maskwire_core.errors import InvalidArgument
from maskwire_core.masks.geometry import ImageSize, parse_box, parse_point
from maskwire_core.masks.rle_input import decode_rle
from numpy.typing import NDArray

from maskwire_tracker.options import TrackOptions
from maskwire_tracker.stored_track import Description

KEPT_FRAMES, MOST_KEPT_FRAMES = 8, 64
_MAX_OBJECT_ID = 128
_MOST_SIDE = 1 << 16
_CODECS = {types_pb2.DATA_TYPE_UNSPECIFIED: "fp32", types_pb2.DATA_TYPE_FP32: "fp32", types_pb2.DATA_TYPE_FP16: "fp16"}
_FORMATS = {
    types_pb2.MASK_FORMAT_RLE,
    types_pb2.MASK_FORMAT_PNG,
    types_pb2.MASK_FORMAT_POLYGONS,
    types_pb2.MASK_FORMAT_PACKED_BITS,
}

Formats = frozenset[types_pb2.MaskFormat.ValueType]


@dataclass(frozen=True)
class PointPrompt:
    """Points and a box on an object."""

    points: tuple[tuple[float, float], ...]  # x and y in pixels of the frame
    labels: tuple[int, ...]  # 1 inside, 0 outside
    box: tuple[float, ...] | None  # x_min, y_min, x_max, y_max in pixels of the frame
    keep_points: bool  # whether the points are added to those that the object has on the frame


def parse_options(options: pb.TrackOptions) -> TrackOptions:
    """Returns how objects are followed. Raises `InvalidArgument` (BAD_OPTIONS)."""
    corrected = options.add_all_frames_to_correct_as_cond
    try:
        return TrackOptions(
            fill_hole_area=options.fill_hole_area if options.HasField("fill_hole_area") else 8,
            non_overlap_masks=options.non_overlap_masks,
            add_all_frames_to_correct_as_cond=corrected
            if options.HasField("add_all_frames_to_correct_as_cond")
            else True,
            clear_non_cond_mem_around_input=options.clear_non_cond_mem_around_input,
            memory_temporal_stride_for_eval=options.memory_temporal_stride_for_eval or 1,
            max_cond_frames_in_attn=options.max_cond_frames_in_attn or -1,
        )
    except ValueError as error:
        raise InvalidArgument("BAD_OPTIONS", str(error), field="open.options") from error


def parse_codec(embeddings: types_pb2.DataType.ValueType) -> str:
    """Returns how embeddings of frames are stored. Raises `InvalidArgument` (BAD_DATA_TYPE)."""
    if embeddings not in _CODECS:
        raise InvalidArgument("BAD_DATA_TYPE", f"{embeddings} is no DataType", field="open.embeddings")
    return _CODECS[embeddings]


def parse_formats(formats: Sequence[types_pb2.MaskFormat.ValueType]) -> Formats:
    """Returns the forms of masks. Raises `InvalidArgument` (UNKNOWN_VALUE)."""
    for index, each in enumerate(formats[: len(_FORMATS) + 1]):
        if each and each not in _FORMATS:
            raise InvalidArgument(
                "UNKNOWN_VALUE", "tracks give masks as RLE, PNG, polygons or bits", field=f"open.formats[{index}]"
            )
    return frozenset(each or types_pb2.MASK_FORMAT_RLE for each in formats[:32]) or frozenset(
        {types_pb2.MASK_FORMAT_RLE}
    )


def parse_kept_frames(kept_frames: int) -> int:
    """Returns how many frames of a stream are kept. Raises `InvalidArgument` (BAD_KEPT_FRAMES)."""
    if kept_frames > MOST_KEPT_FRAMES:
        raise InvalidArgument(
            "BAD_KEPT_FRAMES", f"kept_frames is {kept_frames}; at most {MOST_KEPT_FRAMES}", field="open.kept_frames"
        )
    return kept_frames or KEPT_FRAMES


def check_size(width: int, height: int, path: str) -> None:
    """Checks the size of frames. Raises `InvalidArgument` (BAD_SIZE)."""
    for name, value in (("width_px", width), ("height_px", height)):
        if not 0 < value <= _MOST_SIDE:
            raise InvalidArgument("BAD_SIZE", f"{name} is {value}; give that of the frames", field=f"{path}.{name}")


def parse_object_id(object_id: str) -> str:
    """Returns an object's name. Raises `InvalidArgument` (BAD_OBJECT_ID)."""
    if not 0 < len(object_id) <= _MAX_OBJECT_ID or any(unicodedata.category(each) == "Cc" for each in object_id):
        raise InvalidArgument(
            "BAD_OBJECT_ID",
            f"object_id is empty, longer than {_MAX_OBJECT_ID} characters, or has control characters",
            field="prompt.object_id",
        )
    return object_id


def parse_points(message: pb.TrackPoints, size: ImageSize, most: int) -> PointPrompt:
    """Checks points and a box on a frame.

    Raises:
        InvalidArgument: NO_PROMPTS, TOO_MANY_POINTS, BOX_AND_KEPT_POINTS, or those of points and boxes.
    """
    path = "prompt.points"
    if len(message.points) > most:
        raise InvalidArgument(
            "TOO_MANY_POINTS", f"{len(message.points)} points; at most {most} fit in one prompt", field=f"{path}.points"
        )
    if not message.points and not message.HasField("box"):
        raise InvalidArgument("NO_PROMPTS", "there is neither a point nor a box; give one", field=path)
    if message.HasField("box") and message.keep_points:
        raise InvalidArgument(
            "BOX_AND_KEPT_POINTS", "a box replaces the points; leave keep_points out", field=f"{path}.keep_points"
        )
    parsed = [parse_point(point, f"{path}.points[{index}]", size) for index, point in enumerate(message.points)]
    box = tuple(map(float, parse_box(message.box, f"{path}.box", size))) if message.HasField("box") else None
    points = tuple((x, y) for x, y, _ in parsed)
    return PointPrompt(points, tuple(label for _, _, label in parsed), box, message.keep_points)


def parse_mask(message: types_pb2.Rle, size: ImageSize) -> NDArray[np.bool_]:
    """Returns a mask of the frame's size, height x width. Raises `InvalidArgument`."""
    return decode_rle(message, "prompt.mask", size).astype(bool)


def track_info(
    namespace: str, track_id: str, epoch: int, description: Description, object_ids: Sequence[str]
) -> pb.TrackInfo:
    """Describes a track."""
    info = pb.TrackInfo(
        track_id=track_id,
        namespace=namespace,
        model=description.model,
        clip_id=description.clip_id,
        width_px=description.width,
        height_px=description.height,
        frames=description.frames,
        object_ids=object_ids,
        stored_bytes=description.stored_bytes,
        epoch=epoch,
        hand_over=description.hand_over,
    )
    if description.followed_to is not None:
        info.followed_to = description.followed_to
    return info
