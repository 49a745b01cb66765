"""Masks as other tools take them."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from maskwire.errors import InvalidRequest, OutputMissing

if TYPE_CHECKING:
    import supervision


class HasMask(Protocol):
    """A mask of an image: of a result, or one of everything."""

    @property
    def array(self) -> NDArray[np.bool_]: ...
    @property
    def rle(self) -> dict[str, Any]: ...
    @property
    def score(self) -> float: ...


def coco_annotation(mask: HasMask, annotation_id: int, image_id: int | str, category_id: int) -> dict[str, Any]:
    """An annotation of a COCO data set: RLE, area, box as x, y, width, height in pixels, and the score."""
    rle: Any = {"size": mask.rle["size"], "counts": mask.rle["counts"].encode()}
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": mask.rle,
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
        polygons: Each Nx2; those with fewer than three corners are left out, since labelme has no such polygons.
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
        if len(polygon) > 2
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


def crop(picture: Image.Image, mask: NDArray[np.bool_], margin_px: int) -> Image.Image:
    """The part of a picture around a mask."""
    x_min, y_min, x_max, y_max = _edges(mask)
    box = (x_min - margin_px, y_min - margin_px, x_max + margin_px, y_max + margin_px)
    return picture.crop((max(0, box[0]), max(0, box[1]), min(picture.width, box[2]), min(picture.height, box[3])))


def cutout(picture: Image.Image, mask: NDArray[np.bool_]) -> Image.Image:
    """A picture with everything outside of a mask transparent; RGBA, of the picture's size."""
    cut = picture.convert("RGBA")
    cut.putalpha(Image.fromarray(mask.view(np.uint8) * 255))
    return cut


def simplified(polygon: NDArray[Any], tolerance_px: float) -> NDArray[Any]:
    """A closed polygon with fewer corners, no corner that is left out farther than a tolerance from it.

    Ramer-Douglas-Peucker, on the two arcs between the first corner and the one farthest from it.

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
    return polygon[sorted(kept)]


def _distances(points: NDArray[Any], start: NDArray[Any], end: NDArray[Any]) -> NDArray[Any]:
    """Of points from a line segment."""
    along = end - start
    length = float(along @ along)
    share = ((points - start) @ along / length).clip(0, 1) if length else np.zeros(len(points))
    distances: NDArray[Any] = np.linalg.norm(points - (start + share[:, None] * along), axis=1)
    return distances


def _edges(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """x_min, y_min, x_max, y_max of a mask, the last two behind its last pixels; zeros if it is empty."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if not len(columns):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
