"""Masks as files, cuttings and the objects of other libraries; data sets are in maskwire/datasets."""

import io
import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskwire.errors import InvalidRequest, OutputMissing
from maskwire.outlines import exact_polygons

if TYPE_CHECKING:
    import supervision

_PNG_LEVEL = 3  # of the default, 6, two fifths of the time for a fifth more bytes
_LOSSLESS = (".png", ".bmp", ".tif", ".tiff", ".gif", ".pgm")


class HasMask(Protocol):
    """A `Mask` or a `FoundMask`."""

    @property
    def array(self) -> NDArray[np.bool_]:
        """The mask at the image's size, HxW."""

    @property
    def rle(self) -> dict[str, Any]:
        """COCO RLE."""

    @property
    def score(self) -> float:
        """IoU with the object, as predicted by the model."""


def png_bytes(picture: Image.Image) -> bytes:
    """Encodes a picture as PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=_PNG_LEVEL)
    return buffer.getvalue()


def detections(masks: Sequence[HasMask]) -> "supervision.Detections":
    """Converts masks, with their boxes and scores, to Detections of Roboflow's supervision.

    Raises:
        OutputMissing: supervision is not installed.
    """
    try:
        import supervision
    except ImportError as error:
        raise OutputMissing(
            "supervision is not installed: pip install 'maskwire[supervision]'", "NO_SUPERVISION"
        ) from error
    if not masks:
        return supervision.Detections.empty()
    arrays = np.stack([mask.array for mask in masks])
    return supervision.Detections(
        xyxy=supervision.mask_to_xyxy(arrays).astype(np.float64),
        mask=arrays,
        confidence=np.array([mask.score for mask in masks], np.float64),
    )


def save_mask(mask: HasMask, path: str | PathLike[str]) -> None:
    """Writes a mask to a file in the format of its extension; see `Result.save`.

    Raises:
        InvalidRequest: The extension is unknown, or the file cannot be written.
    """
    ending = Path(path).suffix.lower()
    try:
        if ending == ".json":
            Path(path).write_text(json.dumps(mask.rle) + "\n")
        elif ending == ".npy":
            np.save(path, mask.array)
        elif ending == ".npz":
            np.savez_compressed(path, mask=mask.array, score=mask.score)
        elif ending in _LOSSLESS:
            Image.fromarray(mask.array.view(np.uint8) * 255).save(path)
        else:
            raise InvalidRequest(
                f"{path} does not end in .json, .npy, .npz, {', '.join(_LOSSLESS)}; save_overlay writes the mask over "
                "the picture",
                "BAD_OUTPUT",
                "path",
            )
    except OSError as error:
        raise InvalidRequest(f"cannot write {path}: {error.strerror or error}", "BAD_OUTPUT", "path") from error


def save_picture(picture: Image.Image, path: str | PathLike[str]) -> None:
    """Writes a picture to a file in the format of its extension.

    Raises:
        InvalidRequest: The extension is not that of a picture format, or the file cannot be written.
    """
    try:
        picture.save(path)
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"cannot write {path}: {error}", "BAD_OUTPUT", "path") from error


def crop(picture: Image.Image, mask: NDArray[np.bool_], margin_px: int) -> Image.Image:
    """Crops a picture to the bounding box of a mask, extended by a margin on each side."""
    x_min, y_min, x_max, y_max = bounding_box(mask)
    box = (x_min - margin_px, y_min - margin_px, x_max + margin_px, y_max + margin_px)
    return picture.crop((max(0, box[0]), max(0, box[1]), min(picture.width, box[2]), min(picture.height, box[3])))


def cutout(picture: Image.Image, mask: NDArray[np.bool_]) -> Image.Image:
    """Makes everything outside a mask transparent; returns RGBA of the picture's size."""
    cut = picture.convert("RGBA")
    cut.putalpha(Image.fromarray(mask.view(np.uint8) * 255))
    return cut


def with_area(contour: NDArray[np.int32]) -> list[NDArray[np.int32]]:
    """Replaces a contour without an area by polygons with one.

    A contour through the centres of border pixels has no area if the pixels are single, or form lines one pixel wide.
    It is replaced by outlines along the edges of those pixels.

    Args:
        contour: Nx2 x, y in pixels.

    Returns:
        The contour itself, or the outlines: Nx2 x, y in pixels each, with at least three vertices and a positive area.
    """
    if area(contour) > 0:
        return [contour]
    origin = contour.min(0)
    corners = contour - origin
    mask = np.zeros(tuple(corners.max(0)[::-1] + 1), bool)
    for start, end in zip(corners, np.roll(corners, -1, 0), strict=True):
        steps = int(np.abs(end - start).max())
        line = np.rint(np.linspace(start, end, steps + 1)).astype(int)
        mask[line[:, 1], line[:, 0]] = True
    return [ring.astype(np.int32) + origin for ring in exact_polygons(mask)]


def area(polygon: NDArray[Any]) -> float:
    """Computes the area of a polygon, Nx2, by the shoelace formula."""
    x, y = polygon.astype(np.float64).T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def simplified(polygon: NDArray[Any], tolerance_px: float) -> NDArray[Any]:
    """Simplifies a closed polygon with the Ramer-Douglas-Peucker algorithm.

    The algorithm is applied to the two arcs between the first vertex and the one farthest from it. A polygon that would
    lose its area is returned unchanged.

    Args:
        polygon: Nx2 x, y in pixels.
        tolerance_px: Largest distance of removed vertices from the result; 0 returns the polygon unchanged.

    Raises:
        InvalidRequest: The tolerance is negative.
    """
    if tolerance_px < 0:
        raise InvalidRequest(f"simplify_px is {tolerance_px}; give 0 or more", "BAD_OUTPUT", "simplify_px")
    if not tolerance_px or len(polygon) < 4:
        return polygon
    closed = np.concatenate([polygon, polygon[:1]]).astype(float)
    far = int(np.linalg.norm(polygon - polygon[0], axis=1).argmax())
    kept = {0, far}
    arcs = [(0, far), (far, len(polygon))]
    while arcs:
        start, end = arcs.pop()
        distances = _distances(closed[start + 1 : end], closed[start], closed[end])
        if len(distances) and distances.max() > tolerance_px:
            middle = start + 1 + int(distances.argmax())
            kept.add(middle)
            arcs += [(start, middle), (middle, end)]
    fewer = polygon[sorted(kept)]
    return fewer if len(fewer) > 2 and area(fewer) else polygon


def _distances(points: NDArray[Any], start: NDArray[Any], end: NDArray[Any]) -> NDArray[Any]:
    """Computes the distances of points, Nx2, from a line segment."""
    along = end - start
    length = float(along @ along)
    share = ((points - start) @ along / length).clip(0, 1) if length else np.zeros(len(points))
    distances: NDArray[Any] = np.linalg.norm(points - (start + share[:, None] * along), axis=1)
    return distances


def bounding_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Returns x_min, y_min, x_max, y_max of a mask, the last two exclusive; zeros if the mask is empty."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if not len(columns):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
