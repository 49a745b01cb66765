"""Masks as other tools take them."""

import io
import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from maskwire.errors import InvalidRequest, OutputMissing
from maskwire.outlines import exact_polygons

if TYPE_CHECKING:
    import supervision

_LOSSLESS = (".png", ".bmp", ".tif", ".tiff", ".gif", ".pgm")


class HasMask(Protocol):
    """A mask of an image: of a result, or one of everything."""

    @property
    def array(self) -> NDArray[np.bool_]: ...
    @property
    def rle(self) -> dict[str, Any]: ...
    @property
    def score(self) -> float: ...


def coco_annotation(
    mask: HasMask, annotation_id: int, image_id: int | str, category_id: int, polygons: bool = False
) -> dict[str, Any]:
    """An annotation of a COCO data set: RLE or polygons whose union is the mask, area, box as x, y, width, height in
    pixels, and the score."""
    rle: Any = {"size": mask.rle["size"], "counts": mask.rle["counts"].encode()}
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": [each.ravel().tolist() for each in exact_polygons(mask.array)] if polygons else mask.rle,
        "area": int(coco.area(rle)),
        "bbox": [float(value) for value in coco.toBbox(rle)],
        "iscrowd": 0,
        "score": mask.score,
    }


def coco_dataset(masks: Sequence[HasMask], file_name: str, width: int, height: int) -> dict[str, Any]:
    """All masks of one picture as a COCO data set with one category."""
    return {
        "images": [{"id": 1, "file_name": file_name, "width": width, "height": height}],
        "categories": [{"id": 1, "name": "object"}],
        "annotations": [coco_annotation(mask, number, 1, 1) for number, mask in enumerate(masks, 1)],
    }


def labelme(
    polygons: Sequence[NDArray[Any]], label: str, group_id: int | None, file_name: str, width: int, height: int
) -> dict[str, Any]:
    """A labelme file without the picture in it.

    Args:
        polygons: Each Nx2, at least three corners.
        label: Of the object.
        group_id: Marks its polygons as one object's.
        file_name: Of the picture, beside the labelme file.
        width: In pixels.
        height: Likewise.
    """
    shapes = [
        {
            "label": label,
            "points": polygon.astype(float).tolist(),
            "group_id": group_id,
            "description": "",
            "shape_type": "polygon",
            "flags": {},
            "mask": None,
        }
        for polygon in polygons
    ]
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": file_name,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }


def yolo_line(
    contours: Sequence[tuple[NDArray[Any], bool]], category: int, width: int, height: int, simplify_px: float = 1
) -> str:
    """A line of a YOLO segmentation file: class number, then x and y of the outline's corners, as parts of 1.

    YOLO has one outline for an object. Parts and holes are joined to it by lines there and back, whose area is nothing:
    programs that fill it (as Ultralytics' do, with OpenCV) get the mask.

    Args:
        contours: Outlines and holes, each Nx2 and whether it is a hole.
        category: Number of the class, from 0.
        width: Of the image, in pixels.
        height: Likewise.
        simplify_px: How far corners may be from the outline that are left out.

    Returns:
        The line without its end; empty if nothing has an area.
    """
    rings = [simplified(contour, simplify_px) for contour, _ in contours if len(contour) > 2]
    rings = [ring for ring in rings if len(ring) > 2]
    if not rings:
        return ""
    joined, *others = (ring.astype(float) for ring in rings)
    for ring in others:
        distances = ((joined[:, None] - ring[None]) ** 2).sum(2)
        here, there = np.unravel_index(int(distances.argmin()), distances.shape)
        turned = np.roll(ring, -int(there), axis=0)
        joined = np.concatenate([joined[: here + 1], turned, turned[:1], joined[here:]])
    fractions = (joined / (width, height)).clip(0, 1)
    return f"{category} " + " ".join(f"{value:.6f}" for value in fractions.ravel())


def png_bytes(picture: Image.Image) -> bytes:
    """A picture as a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def detections(masks: Sequence[HasMask]) -> "supervision.Detections":
    """Masks, their boxes and scores, for Roboflow's supervision.

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
    """Writes a mask to a file in the format of its ending; see `Result.save`.

    Raises:
        InvalidRequest: The ending has no format, or the file cannot be written.
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
    """Writes a picture to a file in the format of its ending.

    Raises:
        InvalidRequest: The ending is not that of a picture, or the file cannot be written.
    """
    try:
        picture.save(path)
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"cannot write {path}: {error}", "BAD_OUTPUT", "path") from error


def crop(picture: Image.Image, mask: NDArray[np.bool_], margin_px: int) -> Image.Image:
    """The part of a picture around a mask."""
    x_min, y_min, x_max, y_max = edges(mask)
    box = (x_min - margin_px, y_min - margin_px, x_max + margin_px, y_max + margin_px)
    return picture.crop((max(0, box[0]), max(0, box[1]), min(picture.width, box[2]), min(picture.height, box[3])))


def cutout(picture: Image.Image, mask: NDArray[np.bool_]) -> Image.Image:
    """A picture with everything outside of a mask transparent; RGBA, of the picture's size."""
    cut = picture.convert("RGBA")
    cut.putalpha(Image.fromarray(mask.view(np.uint8) * 255))
    return cut


def with_area(contour: NDArray[np.int32]) -> list[NDArray[np.int32]]:
    """Rings that have at least three corners and an area, for a contour through the centres of border pixels.

    A contour that has none is that of single pixels, or of lines one pixel wide: it becomes rings along the edges of
    its pixels, whose area is the number of the pixels.

    Args:
        contour: Nx2 x, y in pixels.
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
    """Of a polygon, Nx2; 0 for one that goes back the way it came."""
    x, y = polygon.astype(np.float64).T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def simplified(polygon: NDArray[Any], tolerance_px: float) -> NDArray[Any]:
    """A closed polygon with fewer corners, no corner that is left out farther than a tolerance from it.

    Ramer-Douglas-Peucker, on the two arcs between the first corner and the one farthest from it. A polygon that would
    be left without an area stays as it is.

    Args:
        polygon: Nx2.
        tolerance_px: 0 leaves it as it is.
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
    """Of points from a line segment."""
    along = end - start
    length = float(along @ along)
    share = ((points - start) @ along / length).clip(0, 1) if length else np.zeros(len(points))
    distances: NDArray[Any] = np.linalg.norm(points - (start + share[:, None] * along), axis=1)
    return distances


def edges(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """x_min, y_min, x_max, y_max of a mask, the last two behind its last pixels; zeros if it is empty."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if not len(columns):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
