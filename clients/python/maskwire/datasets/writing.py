"""Writes data sets in the formats of trainers and tools."""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Literal

from PIL import Image

from maskwire.arguments import check_choice
from maskwire.datasets import voc
from maskwire.datasets.annotations import AnnotatedImage, classes_of
from maskwire.datasets.coco import write_coco
from maskwire.datasets.labelme import LabelmeShapes, labelme, shapes_of
from maskwire.datasets.yolo import yolo_line
from maskwire.errors import InvalidRequest
from maskwire.exports import bounding_box
from maskwire.outlines import pixel_contours

WritableForm = Literal["coco", "coco-uncompressed", "labelme", "yolo", "voc"]

_Files = Iterator[tuple[str, bytes]]


def write(
    images: Sequence[AnnotatedImage],
    output: str | PathLike[str],
    form: WritableForm,
    *,
    simplify_px: float = 1,
    shapes: LabelmeShapes = "auto",
) -> list[Path]:
    """Writes a data set.

    Args:
        images: The images; for labelme, YOLO and VOC every object needs a mask.
        output: For COCO a .json file, for the others a folder. Files get the names of the images, in the same
            subfolders. labelme: NAME.json. YOLO: labels/NAME.txt, and data.yaml for the trainer, which expects the
            pictures in images/. VOC: SegmentationClass/NAME.png, SegmentationObject/NAME.png, Annotations/NAME.xml, and
            classes.txt, whose first line is the class of pixels that are 1.
        form: "coco", "coco-uncompressed" (which supervision from 0.25 reads), "labelme", "yolo" or "voc".
        simplify_px: Largest distance of removed vertices from simplified polygons of labelme and YOLO, in pixels.
        shapes: See `Result.to_labelme`.

    Returns:
        The files that were written.

    Raises:
        InvalidRequest: BAD_FORM; NO_MASK: an object has none; BAD_DATASET: an image's name would leave the folder;
            TOO_MANY_MASKS: more classes or objects than VOC's images can have; BAD_OUTPUT: a file cannot be written.
    """
    classes = classes_of(images)
    makers: dict[str, Callable[[], _Files]] = {
        "coco": lambda: iter([("", _json(write_coco(images, classes)))]),
        "coco-uncompressed": lambda: iter([("", _json(write_coco(images, classes, uncompressed=True)))]),
        "labelme": lambda: _labelme(images, simplify_px, shapes),
        "yolo": lambda: _yolo(images, classes, simplify_px),
        "voc": lambda: _voc(images, classes),
    }
    check_choice("form", form, makers)
    written = []
    for name, content in makers[form]():
        path = Path(output) / name if name else Path(output)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except OSError as error:
            raise InvalidRequest(f"cannot write {path}: {error.strerror or error}", "BAD_OUTPUT", "output") from error
        except ValueError as error:  # of names that are no text, or hold a zero
            raise InvalidRequest(f"cannot write {str(path)!r}: {error}", "BAD_OUTPUT", "output") from error
        written.append(path)
    return written


def _labelme(images: Sequence[AnnotatedImage], simplify_px: float, shapes: LabelmeShapes) -> _Files:
    for image in images:
        made = []
        for number, each in enumerate(image.annotations):
            made += shapes_of(each.array, None, each.label, number, simplify_px, shapes)
        name = PurePosixPath(image.file_name).name
        yield f"{_stem(image)}.json", _json(labelme(made, name, image.width, image.height))


def _yolo(images: Sequence[AnnotatedImage], classes: Sequence[str], simplify_px: float) -> _Files:
    for image in images:
        lines = [
            yolo_line(pixel_contours(each.array), classes.index(each.label), image.width, image.height, simplify_px)
            for each in image.annotations
        ]
        yield f"labels/{_stem(image)}.txt", "".join(f"{line}\n" for line in lines if line).encode()
    names = "".join(f"  {number}: {json.dumps(name)}\n" for number, name in enumerate(classes))
    yield "data.yaml", f"path: .\ntrain: images\nval: images\nnc: {len(classes)}\nnames:\n{names}".encode()


def _voc(images: Sequence[AnnotatedImage], classes: Sequence[str]) -> _Files:
    for image in images:
        objects = [(each.label, each.array) for each in image.annotations]
        objects = [(label, mask) for label, mask in objects if mask.any()]  # an empty mask has no box
        masks, labels = [mask for _, mask in objects], [label for label, _ in objects]
        numbers = [classes.index(label) + 1 for label in labels]
        pictures = voc.label_images(masks, numbers, image.width, image.height)
        for folder, picture in zip(("SegmentationClass", "SegmentationObject"), pictures, strict=True):
            yield f"{folder}/{_stem(image)}.png", _png(picture)
        xml = voc.annotation_xml(
            image.file_name, image.width, image.height, labels, [bounding_box(mask) for mask in masks]
        )
        yield f"Annotations/{_stem(image)}.xml", xml
    yield "classes.txt", "".join(f"{name}\n" for name in classes).encode()


def _stem(image: AnnotatedImage) -> str:
    """Returns the path of an image without its ending.

    Raises:
        InvalidRequest: BAD_DATASET: it is absolute or leaves its folder.
    """
    path = PurePosixPath(image.file_name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise InvalidRequest(
            f"the image {image.file_name!r} would be written outside of the folder; make its name relative",
            "BAD_DATASET",
            "file_name",
        )
    return str(path.with_suffix(""))


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _json(document: object) -> bytes:
    return (json.dumps(document) + "\n").encode()
