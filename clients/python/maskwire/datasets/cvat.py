"""Reads "CVAT for images 1.1": the XML file of CVAT's export, or the zip file that holds it."""

import re
import warnings
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from maskwire.datasets.annotations import (
    AnnotatedImage,
    Annotation,
    BoundingBox,
    clipped,
    rle_of,
    rle_of_polygons,
)
from maskwire.errors import InvalidRequest

_MEMBER = "annotations.xml"


def read_cvat(path: Path) -> list[AnnotatedImage]:
    """Reads boxes, ellipses (as their boxes), polygons, masks and points. Other shapes are skipped, with a warning.

    Args:
        path: The XML file, or the zip file.

    Raises:
        InvalidRequest: BAD_DATASET: the file is no such export; the message says what is wrong in it.
    """
    try:
        root = ElementTree.fromstring(_xml(path))
    except ElementTree.ParseError as error:
        raise _bad(path, f"is no XML: {error}") from error
    if root.tag != "annotations":
        raise _bad(path, f"begins with <{root.tag}>, not with <annotations>")
    if root.find("track") is not None:
        raise _bad(path, "is an export of tracks; export the task as 'CVAT for images 1.1'")
    skipped: Counter[str] = Counter()
    images = []
    for image in root.iter("image"):
        name = image.get("name", "")
        try:
            width, height = int(image.attrib["width"]), int(image.attrib["height"])
            found = [_annotation(shape, width, height) for shape in image]
        except (KeyError, ValueError) as error:
            raise _bad(path, f"image {name!r}: {error}") from error
        skipped.update(shape.tag for shape, made in zip(image, found, strict=True) if made is None)
        images.append(AnnotatedImage(name, width, height, [made for made in found if made is not None]))
    if skipped:
        counted = ", ".join(f"{count} <{tag}>" for tag, count in sorted(skipped.items()))
        warnings.warn(f"{path}: skipped {counted}, which mark no objects of an area", stacklevel=2)
    return images


def _xml(path: Path) -> bytes:
    if not zipfile.is_zipfile(path):
        data = path.read_bytes()
    else:
        with zipfile.ZipFile(path) as archive:
            if _MEMBER not in archive.namelist():
                raise _bad(path, f"has no {_MEMBER}; export the task as 'CVAT for images 1.1'")
            data = archive.read(_MEMBER)
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise _bad(path, "declares a document type, which CVAT does not; entities could fill the memory")
    return data


def _annotation(shape: ElementTree.Element, width: int, height: int) -> Annotation | None:
    """Makes an annotation of an element; None for one that marks no object.

    Raises:
        KeyError: An attribute is missing.
        ValueError: An attribute is wrong; the message says which.
    """
    values, label = shape.attrib, shape.get("label", "")
    match shape.tag:
        case "box":
            return Annotation(label, clipped(_box(values), width, height))
        case "ellipse":
            x, y, across, down = (float(values[name]) for name in ("cx", "cy", "rx", "ry"))
            return Annotation(label, clipped((x - across, y - down, x + across, y + down), width, height))
        case "polygon":
            points = _points(values["points"])
            if len(points) < 3:
                raise ValueError(f"<polygon> of {len(points)} points")
            flat = [number for point in points for number in point]
            return Annotation(label, rle=rle_of_polygons([flat], width, height))
        case "points":
            return Annotation(label, points=_points(values["points"]))
        case "mask":
            return Annotation(label, rle=rle_of(_mask(values, width, height)))
        case _:
            return None


def _box(values: Any) -> BoundingBox:
    x_min, y_min, x_max, y_max = (float(values[name]) for name in ("xtl", "ytl", "xbr", "ybr"))
    angle = np.radians(float(values.get("rotation", 0)))
    if not angle:
        return x_min, y_min, x_max, y_max
    # CVAT turns a box around its centre.
    half_width, half_height = (x_max - x_min) / 2, (y_max - y_min) / 2
    x, y = x_min + half_width, y_min + half_height
    across = abs(half_width * np.cos(angle)) + abs(half_height * np.sin(angle))
    down = abs(half_width * np.sin(angle)) + abs(half_height * np.cos(angle))
    return float(x - across), float(y - down), float(x + across), float(y + down)


def _points(text: str) -> list[tuple[float, float]]:
    points = []
    for pair in filter(None, text.split(";")):
        x, y = pair.split(",")
        points.append((float(x), float(y)))
    return points


def _mask(values: Any, width: int, height: int) -> NDArray[np.bool_]:
    """Decodes runs of pixels, row by row within a box: how many are outside, how many inside, and so on."""
    left, top, columns, rows = (int(values[name]) for name in ("left", "top", "width", "height"))
    lengths = np.array([int(number) for number in re.split(r"[,\s]+", values["rle"].strip())], np.int64)
    if left < 0 or top < 0 or left + columns > width or top + rows > height:
        raise ValueError(f"<mask> at {left}, {top} of {columns}x{rows} leaves the image of {width}x{height}")
    if lengths.min() < 0 or lengths.sum() != columns * rows:
        raise ValueError(f"rle of a <mask> has {lengths.sum()} pixels instead of {columns}x{rows}")
    mask = np.zeros((height, width), bool)
    mask[top : top + rows, left : left + columns] = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(
        rows, columns
    )
    return mask


def _bad(path: Path, what: str) -> InvalidRequest:
    return InvalidRequest(f"{path} {what}", "BAD_DATASET", "path")
