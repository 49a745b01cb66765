"""Reads "CVAT for images 1.1": the XML file of CVAT's export, or the zip file that holds it."""

import itertools
import re
import warnings
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from maskwire.datasets import values
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
_MOST_BYTES = 1 << 29


def read_cvat(path: Path) -> list[AnnotatedImage]:
    """Reads boxes, ellipses (as their boxes), polygons, masks and points. Other shapes are skipped, with a warning.

    Args:
        path: The XML file, or the zip file.

    Raises:
        InvalidRequest: BAD_DATASET: the file is no such export; the message says what is wrong in it.
    """
    parser = ElementTree.XMLParser(target=_Tree())
    try:
        parser.feed(_xml(path))
        root = parser.close()
    except _DocumentType as error:
        raise _bad(path, "declares a document type, which CVAT does not; entities could fill the memory") from error
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # of an encoding, too
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
            width, height = values.size_of(image.attrib["width"], image.attrib["height"])
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
        try:
            with zipfile.ZipFile(path) as archive, archive.open(_MEMBER) as member:
                data = member.read(_MOST_BYTES + 1)
        except KeyError as error:
            raise _bad(path, f"has no {_MEMBER}; export the task as 'CVAT for images 1.1'") from error
        except (zlib.error, EOFError, RuntimeError, ValueError) as error:  # RuntimeError: it is encrypted, or too new
            raise _bad(path, f"cannot be unpacked: {error}") from error
        if len(data) > _MOST_BYTES:
            raise _bad(path, f"has an {_MEMBER} of more than {_MOST_BYTES >> 20} MiB; unpack it, and read that")
    return data


class _DocumentType(Exception):
    pass


class _Tree(ElementTree.TreeBuilder):
    """Builds a document that declares no type."""

    def doctype(self, *_: Any) -> None:
        raise _DocumentType


def _annotation(shape: ElementTree.Element, width: int, height: int) -> Annotation | None:
    """Makes an annotation of an element; None for one that marks no object.

    Raises:
        KeyError: An attribute is missing.
        ValueError: An attribute is wrong; the message says which.
    """
    given, label = shape.attrib, shape.get("label", "")
    match shape.tag:
        case "box":
            return Annotation(label, clipped(_box(given), width, height))
        case "ellipse":
            x, y, across, down = _numbers(given, "cx", "cy", "rx", "ry")
            return Annotation(label, clipped((x - across, y - down, x + across, y + down), width, height))
        case "polygon":
            points = _points(given["points"])
            if len(points) < 3:
                raise ValueError(f"<polygon> of {len(points)} points")
            flat = [number for point in points for number in point]
            return Annotation(label, rle=rle_of_polygons([flat], width, height))
        case "points":
            return Annotation(label, points=_points(given["points"]))
        case "mask":
            return Annotation(label, rle=rle_of(_mask(given, width, height)))
        case _:
            return None


def _box(given: Any) -> BoundingBox:
    x_min, y_min, x_max, y_max = _numbers(given, "xtl", "ytl", "xbr", "ybr")
    angle = np.radians(values.finite([float(given.get("rotation", 0))], "rotation")[0])
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
    values.finite(itertools.chain(*points), "points")
    return points


def _numbers(given: Any, *names: str) -> list[float]:
    return [values.finite([float(given[name])], name)[0] for name in names]


def _mask(given: Any, width: int, height: int) -> NDArray[np.bool_]:
    """Decodes runs of pixels, row by row within a box: how many are outside, how many inside, and so on."""
    left, top, columns, rows = (int(given[name]) for name in ("left", "top", "width", "height"))
    if min(left, top, columns, rows) < 0 or left + columns > width or top + rows > height:
        raise ValueError(f"<mask> at {left}, {top} of {columns}x{rows} leaves the image of {width}x{height}")
    lengths = values.lengths([int(number) for number in re.split(r"[,\s]+", given["rle"].strip())], rows, columns)
    mask = np.zeros((height, width), bool)
    mask[top : top + rows, left : left + columns] = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(
        rows, columns
    )
    return mask


def _bad(path: Path, what: str) -> InvalidRequest:
    return InvalidRequest(f"{path} {what}", "BAD_DATASET", "path")
