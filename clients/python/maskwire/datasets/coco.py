"""COCO data sets: annotations of masks, files, and what they hold."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from maskwire import rle
from maskwire.datasets import values
from maskwire.datasets.annotations import AnnotatedImage, Annotation, as_text, rle_of_polygons
from maskwire.errors import InvalidRequest
from maskwire.exports import HasMask
from maskwire.outlines import exact_polygons


def coco_annotation(
    mask: HasMask,
    annotation_id: int,
    image_id: int | str,
    category_id: int,
    polygons: bool = False,
    uncompressed: bool = False,
) -> dict[str, Any]:
    """Makes an annotation of a COCO data set: segmentation, area, bounding box as x, y, width, height in pixels, and
    score.

    Args:
        mask: The mask.
        annotation_id: Id of the annotation.
        image_id: Id of the image.
        category_id: Id of the category.
        polygons: Whether the segmentation is polygons whose union is the mask, instead of RLE.
        uncompressed: Whether it is RLE with the lengths of runs as a list, and "iscrowd" 1, as COCO has it for crowds.

    Raises:
        InvalidRequest: TWO_NAMES: polygons and uncompressed are both True. BAD_MASK_DATA: the mask's RLE is none.
    """
    if polygons and uncompressed:
        raise InvalidRequest("a segmentation is polygons or uncompressed RLE, not both", "TWO_NAMES", "uncompressed")
    inside = rle.area(mask.rle["counts"])
    box = rle.bounding_box(mask.rle["counts"], mask.rle["size"][0])
    if inside is None or box is None:
        raise InvalidRequest("a mask is no run lengths of its size", "BAD_MASK_DATA", "mask")
    segmentation: Any = mask.rle
    if polygons:
        segmentation = [polygon.ravel().tolist() for polygon in exact_polygons(mask.array)]
    elif uncompressed:
        segmentation = {"size": mask.rle["size"], "counts": run_lengths(mask.array)}
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": segmentation,
        "area": inside,
        "bbox": [float(value) for value in (*box[:2], box[2] - box[0], box[3] - box[1])],
        "iscrowd": int(uncompressed),
        "score": mask.score,
    }


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """Returns the lengths of a mask's runs, column by column; the first is that of pixels outside, perhaps 0."""
    values = mask.ravel(order="F")
    ends = np.flatnonzero(np.diff(values.view(np.int8))) + 1
    lengths: list[int] = np.diff(np.concatenate([[0], ends, [values.size]])).tolist()
    return [0, *lengths] if values.size and values[0] else lengths


@dataclass(frozen=True)
class CocoImage:
    """An image of a COCO data set, with its masks."""

    file_name: str  # path to the image, as the data set states it
    width: int  # width in pixels
    height: int  # height in pixels
    masks: Sequence[HasMask]  # the masks of its objects
    classes: Sequence[str]  # name of each mask's class


def coco_dataset(images: Sequence[CocoImage], classes: Sequence[str], uncompressed: bool = False) -> dict[str, Any]:
    """Makes a COCO data set of images and their masks, with a category for each class; "info" says who reads it."""
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(images, 1):
        for mask, name in zip(image.masks, image.classes, strict=True):
            category = classes.index(name) + 1
            annotations.append(coco_annotation(mask, len(annotations) + 1, number, category, uncompressed=uncompressed))
    return _document(
        [(image.file_name, image.width, image.height) for image in images], classes, annotations, uncompressed
    )


def write_coco(images: Sequence[AnnotatedImage], classes: Sequence[str], uncompressed: bool = False) -> dict[str, Any]:
    """Makes a COCO data set of annotated images. Objects without a mask have a bounding box and no segmentation, which
    `maskwire prelabel --boxes` takes."""
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(images, 1):
        for each in image.annotations:
            made_of = len(annotations) + 1, number, classes.index(each.label) + 1
            if each.rle is not None:
                mask: Any = each
                annotations.append(coco_annotation(mask, *made_of, uncompressed=uncompressed))
                continue
            x_min, y_min, x_max, y_max = each.bounds
            annotations.append(
                {
                    **dict(zip(("id", "image_id", "category_id"), made_of, strict=True)),
                    "area": each.area,
                    "bbox": [x_min, y_min, x_max - x_min, y_max - y_min],
                    "iscrowd": 0,
                }
            )
    return _document(
        [(image.file_name, image.width, image.height) for image in images], classes, annotations, uncompressed
    )


def _document(
    images: Sequence[tuple[str, int, int]], classes: Sequence[str], annotations: Sequence[Any], uncompressed: bool
) -> dict[str, Any]:
    readers = "0.25, but scores of pycocotools ignore crowds" if uncompressed else "0.30"
    return {
        "info": {
            "description": f"Masks are {'un' if uncompressed else ''}compressed RLE, read by pycocotools, and by "
            f"supervision from {readers}"
        },
        "images": [
            {"id": number, "file_name": name, "width": width, "height": height}
            for number, (name, width, height) in enumerate(images, 1)
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(classes, 1)],
        "annotations": annotations,
    }


def read_coco(path: Path) -> list[AnnotatedImage]:
    """Reads boxes, polygons and RLE, compressed or not.

    Args:
        path: The JSON file.

    Raises:
        InvalidRequest: BAD_DATASET: the file is no COCO data set; the message says what is wrong in it.
    """
    place = ""
    try:
        document = json.loads(path.read_bytes())
        names = {each["id"]: str(each["name"]) for each in document["categories"]}
        found: dict[Any, AnnotatedImage] = {}
        of_image: dict[Any, list[Annotation]] = {}
        for number, each in enumerate(document["images"]):
            place = f"images[{number}]: "
            annotations = of_image[each["id"]] = []
            size = values.size_of(each["width"], each["height"])
            found[each["id"]] = AnnotatedImage(str(each["file_name"]), *size, annotations)
        for number, each in enumerate(document["annotations"]):
            place = f"annotations[{number}]: "
            image = found[each["image_id"]]
            label = names[each["category_id"]]
            of_image[each["image_id"]].append(_annotation(each, label, image.width, image.height))
    except (ValueError, OverflowError, RecursionError) as error:
        raise InvalidRequest(f"{path}: {place}{error}", "BAD_DATASET", "path") from error
    except (AttributeError, KeyError, TypeError) as error:
        raise InvalidRequest(
            f"{path} is no COCO data set of boxes or masks: {place}{type(error).__name__}: {error}",
            "BAD_DATASET",
            "path",
        ) from error
    return list(found.values())


def _annotation(entry: Any, label: str, width: int, height: int) -> Annotation:
    """Makes an annotation of an entry.

    Raises:
        AttributeError, KeyError, OverflowError, TypeError, ValueError: Something is missing or wrong.
    """
    segmentation, score = entry.get("segmentation"), float(entry.get("score", 1))
    if not math.isfinite(score):
        raise ValueError(f"score is {score}")
    if segmentation:
        return Annotation(label, rle=_rle(segmentation, width, height), score=score)
    x, y, across, down = values.finite(entry["bbox"], "bbox")
    return Annotation(label, (x, y, x + across, y + down), score=score)


def _rle(segmentation: Any, width: int, height: int) -> dict[str, Any]:
    if isinstance(segmentation, list):
        return rle_of_polygons(segmentation, width, height)
    counts = segmentation["counts"]
    if list(segmentation["size"]) != [height, width]:
        raise ValueError(f"a mask has size {segmentation['size']} in an image of {height}x{width}")
    if not isinstance(counts, str):
        runs: Any = {"size": [height, width], "counts": values.lengths(counts, height, width)}
        return as_text(coco.frPyObjects(runs, height, width))
    if not rle.are_of_size(counts, height, width):
        raise ValueError(f"segmentation.counts is no compressed run lengths of {height}x{width} pixels")
    return {"size": [height, width], "counts": counts}
