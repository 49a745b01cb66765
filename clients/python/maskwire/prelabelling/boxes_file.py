"""Reads a COCO data set with boxes, and lists which of them are to become masks."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from maskwire.errors import InvalidRequest

FIELD = "--boxes"
_HUGE = 1e9  # in pixels: beyond all pictures. NaN and infinity are not below it


class Box(NamedTuple):
    """A box that is to become a mask."""

    annotation: int  # position of its annotation in the data set
    xywh: tuple[float, ...]  # x and y of its upper left corner, width and height, in pixels


@dataclass(frozen=True)
class ImageBoxes:
    """An image with boxes that are to become masks."""

    image: int  # position of the image in the data set
    file_name: str  # path of its file, relative to the folder of images
    size: tuple[int, int] | None  # width and height in pixels, as the data set states them; None if it does not
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class BoxesFile:
    """A COCO data set with boxes."""

    document: dict[str, Any]  # the data set
    sha256: str  # digest of its file
    images: tuple[ImageBoxes, ...]  # the images with boxes that are to become masks, in the data set's order


def read(path: Path, replace: bool) -> BoxesFile:
    """Reads a data set.

    Args:
        path: Path of the file.
        replace: Whether annotations that have a segmentation are to get another one.

    Raises:
        InvalidRequest: The file cannot be read, or is not a COCO data set; the message names the place.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise InvalidRequest(f"no such file: {path}", "NO_SUCH_FILE", FIELD) from error
    except OSError as error:
        raise InvalidRequest(f"cannot read {path}: {error.strerror or error}", "BAD_BOXES", FIELD) from error
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{path} is not JSON: {error}", "BAD_BOXES", FIELD) from error
    try:
        images = find_boxes(document, replace)
    except InvalidRequest as error:
        raise InvalidRequest(f"{path}: {error.message}", error.reason, FIELD) from error
    return BoxesFile(document, hashlib.sha256(content).hexdigest(), images)


def find_boxes(document: Any, replace: bool) -> tuple[ImageBoxes, ...]:
    """Lists the images of a data set with the boxes that are to become masks.

    These are the boxes of annotations without a segmentation, or of all with `replace`. Annotations without a box are
    left out, and so are images without such boxes.

    Raises:
        InvalidRequest: It is not a COCO data set.
    """
    if isinstance(document, list):
        raise _wrong("is a list, as of a detector's results, which name no files; give a data set with images")
    if not isinstance(document, dict):
        raise _wrong("is not a COCO data set: give an object with images and annotations")
    images, annotations = (_rows(document, name) for name in ("images", "annotations"))
    positions: dict[int | str, int] = {}
    for position, image in enumerate(images):
        place = f"images[{position}]"
        if not isinstance(image.get("file_name"), str) or not image["file_name"]:
            raise _wrong(f"{place}.file_name is {image.get('file_name')!r}; give the path of its file")
        _add_id(positions, image, position, place)
    boxes: list[list[Box]] = [[] for _ in images]
    for position, annotation in enumerate(annotations):
        place = f"annotations[{position}]"
        image_id = annotation.get("image_id")
        if not isinstance(image_id, int | str) or image_id not in positions:
            raise _wrong(f"{place}.image_id is {image_id!r}, and no image has that id")
        if not annotation.get("bbox") or (annotation.get("segmentation") and not replace):
            continue
        boxes[positions[image_id]].append(Box(position, _xywh(annotation["bbox"], place)))
    return tuple(
        ImageBoxes(position, image["file_name"], _size(image, f"images[{position}]"), tuple(found))
        for position, (image, found) in enumerate(zip(images, boxes, strict=True))
        if found
    )


def _rows(document: dict[str, Any], name: str) -> Sequence[dict[str, Any]]:
    rows = document.get(name)
    if not isinstance(rows, list):
        raise _wrong(f"has no list {name!r}; give a COCO data set")
    for position, row in enumerate(rows):
        if not isinstance(row, dict):
            raise _wrong(f"{name}[{position}] is not an object")
    return rows


def _add_id(positions: dict[int | str, int], image: dict[str, Any], position: int, place: str) -> None:
    image_id = image.get("id")
    if not isinstance(image_id, int | str):
        raise _wrong(f"{place}.id is {image_id!r}; give a number or a text")
    if image_id in positions:
        raise _wrong(f"{place}.id is {image_id!r}, which images[{positions[image_id]}] has too; ids must differ")
    positions[image_id] = position


def _xywh(bbox: Any, place: str) -> tuple[float, ...]:
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(_is_number(value) for value in bbox):
        raise _wrong(f"{place}.bbox is {bbox!r}; give [x, y, width, height] in pixels")
    return tuple(bbox)


def _size(image: dict[str, Any], place: str) -> tuple[int, int] | None:
    width, height = image.get("width"), image.get("height")
    if width is None and height is None:
        return None
    if not all(_is_number(value) and value > 0 and value == int(value) for value in (width, height)):
        raise _wrong(f"{place} has the width {width!r} and the height {height!r}; give both in pixels, or neither")
    return int(width), int(height)  # type: ignore[arg-type]


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and -_HUGE < value < _HUGE


def _wrong(what: str) -> InvalidRequest:
    return InvalidRequest(what, "BAD_BOXES", FIELD)
