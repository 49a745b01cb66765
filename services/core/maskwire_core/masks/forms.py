"""The forms in which masks of an image's size are returned."""

from collections.abc import Collection
from typing import Any

import cv2
import numpy as np
from maskwire.v1 import types_pb2 as pb
from numpy.typing import NDArray
from pycocotools import mask as coco

from maskwire_core.masks.answer_room import AnswerRoom

_POLYGON_BYTES = 8  # on the wire, beside the coordinates


def polygons(mask: NDArray[np.bool_], room: AnswerRoom) -> list[pb.Polygon]:
    """Returns outer contours, each followed by its holes (cv2.findContours, RETR_CCOMP), if there is room for them."""
    contours, hierarchy = cv2.findContours(mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    coordinates = sum(contour.size for contour in contours)
    widest = 2 if max(mask.shape) < 1 << 14 else 3  # bytes of a coordinate on the wire, seven bits in each
    room.take(coordinates * widest + len(contours) * _POLYGON_BYTES, coordinates)
    found = []
    for index, contour in enumerate(contours):
        _, _, hole, parent = hierarchy[0][index]
        if parent >= 0:
            continue
        found.append(pb.Polygon(coordinates_px=contour.astype(int).ravel().tolist()))
        while hole >= 0:
            found.append(pb.Polygon(coordinates_px=contours[hole].astype(int).ravel().tolist(), is_hole=True))
            hole = hierarchy[0][hole][0]
    return found


def mask_in_forms(
    runs: Any, formats: Collection[pb.MaskFormat.ValueType], width: int, height: int, room: AnswerRoom
) -> pb.Mask:
    """Makes a mask in forms other than logits.

    Args:
        runs: Its COCO run lengths, as `rle` gives them.
        formats: The forms.
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        room: What is left of the answer.

    Raises:
        ResourceExhausted: ANSWER_TOO_LARGE.
    """
    result = pb.Mask()
    if pb.MASK_FORMAT_RLE in formats:
        room.take(len(runs["counts"]))
        result.rle.CopyFrom(pb.Rle(size=(height, width), counts=runs["counts"].decode()))
    if set(formats) <= {pb.MASK_FORMAT_LOGITS, pb.MASK_FORMAT_RLE}:
        return result  # no pixels are needed
    mask = cv2.transpose(coco.decode(runs).T).view(np.bool_)
    if pb.MASK_FORMAT_PNG in formats:
        encoded, png = cv2.imencode(".png", mask.view(np.uint8) * 255, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        if not encoded:
            raise RuntimeError("the PNG encoder failed")
        room.take(png.nbytes)
        result.png = png.tobytes()
    if pb.MASK_FORMAT_POLYGONS in formats:
        result.polygons.extend(polygons(mask, room))
    if pb.MASK_FORMAT_PACKED_BITS in formats:
        room.take(height * -(-width // 8))
        result.packed_bits = np.packbits(mask, axis=1).tobytes()
    return result
