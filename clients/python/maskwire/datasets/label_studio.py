"""Reads Label Studio's export "JSON": rectangles, polygons, masks, ellipses and key points of tasks on images."""

import base64
import binascii
import io
import json
import re
import urllib.parse
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskwire.datasets import brush, values
from maskwire.datasets.annotations import (
    AnnotatedImage,
    Annotation,
    clipped,
    rle_of,
    rle_of_polygons,
    turned_bounds,
)
from maskwire.errors import InvalidRequest

_UPLOADED = re.compile(r"^[0-9a-f]{8}-")  # what Label Studio puts before the names of uploaded files
_SHAPES = ("rectangle", "polygon", "vector", "brush", "bitmask", "ellipse", "keypoint")


def read_label_studio(path: Path) -> list[AnnotatedImage]:
    """Reads the newest annotation of each task that was not cancelled; a task without one has no objects.

    Files are named as in the tasks: the path after /data/local-files/?d=, and for uploads the name without the digits
    that Label Studio puts before it. Labels of tags such as Rectangle beside Labels are found by the region's id.

    Args:
        path: The JSON file.

    Raises:
        InvalidRequest: BAD_DATASET: the file is no such export; the message says what is wrong in it.
    """
    try:
        tasks = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _bad(path, f"is no JSON: {error}") from error
    if not isinstance(tasks, list) or not all(isinstance(task, dict) and "data" in task for task in tasks):
        raise _bad(path, 'is no list of tasks; export the project as "JSON" (not "JSON-MIN")')
    skipped: Counter[str] = Counter()
    images = []
    for task in tasks:
        try:
            images.append(_image(task, skipped))
        except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
            what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            raise _bad(path, f"task {task.get('id')}: {what}") from error
    if skipped:
        counted = ", ".join(f"{count} {kind}" for kind, count in sorted(skipped.items()))
        warnings.warn(f"{path}: skipped {counted}, which mark no objects of an area", stacklevel=2)
    return images


def _image(task: Mapping[str, Any], skipped: Counter[str]) -> AnnotatedImage:
    done = [each for each in task.get("annotations") or () if not each.get("was_cancelled")]
    regions: Sequence[Mapping[str, Any]] = (
        max(done, key=lambda each: each.get("updated_at") or "")["result"] if done else ()
    )
    labels = {each.get("id"): each["value"]["labels"] for each in regions if each["type"] == "labels"}
    width = height = 0
    found = []
    for region in regions:
        kind = region["type"].removesuffix("labels")
        if kind not in _SHAPES or (kind == "vector" and not region["value"].get("closed")):
            skipped.update([region["type"]] if kind else [])
            continue
        if region.get("image_rotation"):
            raise ValueError("the image is rotated in Label Studio; save it upright and import it again")
        width, height = values.size_of(region["original_width"], region["original_height"])
        names = region["value"].get(region["type"]) or labels.get(region.get("id")) or ["object"]
        found.append(_annotation(kind, region["value"], str(names[0]), width, height))
    return AnnotatedImage(_file_name(task["data"]), width, height, found)


def _annotation(kind: str, value: Mapping[str, Any], label: str, width: int, height: int) -> Annotation:
    """Makes an annotation of a region, whose coordinates are percents of the image's size."""

    def pixels(*percents: Any) -> tuple[float, float]:
        x, y = values.finite(percents, "a shape")
        return x * width / 100, y * height / 100

    if kind in ("polygon", "vector"):
        corners = value["points"] if kind == "polygon" else [_corner(vertex) for vertex in value["vertices"]]
        points = [pixels(x, y) for x, y in corners]
        if len(points) < 3:
            raise ValueError(f"a polygon of {len(points)} points")
        return Annotation(label, rle=rle_of_polygons([[number for point in points for number in point]], width, height))
    if kind == "brush":
        return Annotation(label, rle=rle_of(brush.decode(value["rle"], width, height)))
    if kind == "bitmask":
        return Annotation(label, rle=rle_of(_mask_of_png(value["imageDataURL"], width, height)))
    x, y = pixels(value["x"], value["y"])
    if kind == "keypoint":
        return Annotation(label, points=[(x, y)])
    if kind == "ellipse":
        across, down = pixels(value["radiusX"], value["radiusY"])
        return Annotation(label, clipped((x - across, y - down, x + across, y + down), width, height))
    size = pixels(value["width"], value["height"])
    (turned,) = values.finite([value.get("rotation") or 0], "rotation")
    return Annotation(label, clipped(turned_bounds(x, y, *size, turned), width, height))


def _corner(vertex: Mapping[str, Any]) -> tuple[float, float]:
    if vertex.get("isBezier"):
        raise ValueError("a vector with curves, which are not read; make its points corners")
    return vertex["x"], vertex["y"]


def _mask_of_png(url: str, width: int, height: int) -> NDArray[np.bool_]:
    """Reads a bitmask: a data URL with a PNG that is transparent outside of the mask."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2], validate=True)), formats=("PNG",)) as png:
            if png.size != (width, height):
                raise ValueError(f"a bitmask of {png.size[0]}x{png.size[1]} pixels instead of {width}x{height}")
            return np.array(png.convert("RGBA"))[..., 3] > 0
    except binascii.Error as error:
        raise ValueError(f"a bitmask that cannot be read: {error}") from error
    except ValueError:
        raise
    except Exception as error:  # Pillow raises all kinds of exceptions for damaged files
        raise ValueError(f"a bitmask that cannot be read: {error}") from error


def _file_name(data: Mapping[str, Any]) -> str:
    """Returns the name of a task's image: of the only value that looks like a path or URL, or of "image"."""
    values = [value for value in data.values() if isinstance(value, str) and "/" in value]
    place = data.get("image") or (values[0] if len(values) == 1 else None)
    if not isinstance(place, str):
        raise ValueError(f'data has no "image"; it has {", ".join(data)}')
    parts = urllib.parse.urlsplit(place)
    if local := urllib.parse.parse_qs(parts.query).get("d"):
        return local[0]
    name = urllib.parse.unquote(parts.path).rpartition("/")[2]
    return _UPLOADED.sub("", name) if "/upload/" in parts.path else name


def _bad(path: Path, what: str) -> InvalidRequest:
    return InvalidRequest(f"{path} {what}", "BAD_DATASET", "path")
