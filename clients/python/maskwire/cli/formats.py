"""Results as files."""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from maskwire import exports, overlay
from maskwire.cli.inputs import Input
from maskwire.errors import InvalidRequest
from maskwire.prompts import Format
from maskwire.results import Mask, Result


class MaskFormat(StrEnum):
    """What `maskwire segment` writes."""

    PNG = "png"
    RLE = "rle"
    POLYGON = "polygon"
    OVERLAY = "overlay"
    NPZ = "npz"
    COCO = "coco"
    LABELME = "labelme"
    YOLO = "yolo"


@dataclass(frozen=True)
class Segmented:
    """The objects of an image.

    Attributes:
        source: The image.
        results: One for each object.
        categories: Name of each object's class; "object" where none was given.
    """

    source: Input
    results: Sequence[Result]
    categories: Sequence[str]

    @property
    def masks(self) -> list[tuple[int, Mask]]:
        """All masks, each with the index of its object."""
        return [(index, mask) for index, result in enumerate(self.results) for mask in result.candidates]


# Of files whose name the user does not give: photo.mask.png for photo.jpg.
ENDINGS = {
    MaskFormat.PNG: ".mask.png",
    MaskFormat.RLE: ".rle.json",
    MaskFormat.POLYGON: ".polygon.json",
    MaskFormat.OVERLAY: ".overlay.png",
    MaskFormat.NPZ: ".masks.npz",
    MaskFormat.COCO: ".coco.json",
    MaskFormat.LABELME: ".json",
    MaskFormat.YOLO: ".txt",
}
NEEDED: dict[MaskFormat, tuple[Format, ...]] = {
    MaskFormat.PNG: ("rle", "png"),
    MaskFormat.RLE: ("rle",),
    MaskFormat.POLYGON: ("rle", "polygons"),
    MaskFormat.OVERLAY: ("rle",),
    MaskFormat.NPZ: ("rle", "logits"),
    MaskFormat.COCO: ("rle",),
    MaskFormat.LABELME: ("rle", "polygons"),
    MaskFormat.YOLO: ("rle", "polygons"),
}
"""Forms of masks that a format is made of."""

TEXTS = {MaskFormat.RLE, MaskFormat.POLYGON, MaskFormat.COCO, MaskFormat.LABELME, MaskFormat.YOLO}
"""Formats that a terminal can show."""

_BY_ENDING = {
    ".png": MaskFormat.PNG,
    ".json": MaskFormat.RLE,
    ".npz": MaskFormat.NPZ,
    ".txt": MaskFormat.YOLO,
}


def choose(form: MaskFormat | None, output: Path | None, is_folder: bool) -> MaskFormat:
    """The format that is wanted: as said, or as the output's ending says."""
    if form is not None:
        return form
    if output is None or is_folder:
        return MaskFormat.OVERLAY
    if str(output) == "-":
        return MaskFormat.RLE
    if output.suffix.lower() not in _BY_ENDING:
        raise InvalidRequest(
            f"{output} does not end in {', '.join(_BY_ENDING)}; say --format", "BAD_OUTPUT", "--output"
        )
    return _BY_ENDING[output.suffix.lower()]


def describe(segmented: Segmented, form: MaskFormat = MaskFormat.RLE) -> dict[str, Any]:
    """The document that --json, '-o -' and .json files have: an image, and its masks as RLE or polygons."""

    def shape(mask: Mask) -> dict[str, Any]:
        if form != MaskFormat.POLYGON:
            return {"rle": mask.rle}
        contours = [{"points": points.tolist(), "is_hole": is_hole} for points, is_hole in mask.contours]
        return {"polygons": [polygon.tolist() for polygon in mask.polygons()], "contours": contours}

    first = segmented.results[0]
    return {
        "image": segmented.source.text,
        "image_id": first.image_id,
        "width": first.width,
        "height": first.height,
        "model": first.model,
        "masks": [
            {
                "object": index,
                "id": segmented.results[index].prompt_id,
                "class": segmented.categories[index],
                "score": mask.score,
                **shape(mask),
            }
            for index, mask in segmented.masks
        ],
    }


def files(segmented: Segmented, form: MaskFormat, classes: Sequence[str]) -> list[bytes]:
    """The content of the files of an image. Pictures of several masks are a file each; anything else is one file.

    Args:
        segmented: The image and its objects.
        form: What to write; not COCO, which is one file for all images.
        classes: Names of all classes; YOLO numbers them in this order.

    Raises:
        InvalidRequest: The picture is not at hand.
    """
    first, masks = segmented.results[0], segmented.masks
    match form:
        case MaskFormat.PNG:
            return [mask.png for _, mask in masks]
        case MaskFormat.OVERLAY:
            if segmented.source.is_stored:
                raise InvalidRequest(
                    f"an overlay needs the picture, and {segmented.source.text!r} is the name of a stored image; give "
                    "the file, or another --format",
                    "NO_PICTURE",
                    "--format",
                )
            if len(segmented.results) > 1:
                drawn = overlay.draw_all(first._picture(None), [result.mask for result in segmented.results])
                return [exports.png_bytes(drawn)]
            return [exports.png_bytes(first.overlay(mask=mask)) for mask in first.candidates]
        case MaskFormat.NPZ:
            archive = io.BytesIO()
            np.savez_compressed(
                archive,
                masks=np.stack([mask.array for _, mask in masks]),
                scores=np.array([mask.score for _, mask in masks]),
                low_res_logits=np.stack([mask.logits for _, mask in masks]),
            )
            return [archive.getvalue()]
        case MaskFormat.LABELME:
            shapes = [
                result.to_labelme(category, Path(segmented.source.text).name, group_id=number)
                for number, (result, category) in enumerate(zip(segmented.results, segmented.categories, strict=True))
            ]
            return [_json({**shapes[0], "shapes": [shape for each in shapes for shape in each["shapes"]]})]
        case MaskFormat.YOLO:
            lines = [
                result.to_yolo(classes.index(category))
                for result, category in zip(segmented.results, segmented.categories, strict=True)
            ]
            return ["".join(line + "\n" for line in lines if line).encode()]
        case _:
            return [_json(describe(segmented, form))]


def coco(images: Sequence[Segmented], classes: Sequence[str]) -> bytes:
    """A COCO data set of several images."""
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(images, 1):
        annotations += [
            exports.coco_annotation(
                result.best, len(annotations) + index, number, classes.index(image.categories[index - 1]) + 1
            )
            for index, result in enumerate(image.results, 1)
        ]
    return _json(
        {
            "images": [
                {
                    "id": number,
                    "file_name": image.source.text,
                    "width": image.results[0].width,
                    "height": image.results[0].height,
                }
                for number, image in enumerate(images, 1)
            ],
            "categories": [{"id": number, "name": name} for number, name in enumerate(classes, 1)],
            "annotations": annotations,
        }
    )


def numbered(output: Path, count: int) -> list[Path]:
    """Names for so many files: mask.png, or mask-0.png, mask-1.png, ..."""
    if count == 1:
        return [output]
    return [output.with_name(f"{output.stem}-{index}{output.suffix}") for index in range(count)]


def write(output: Path, contents: Sequence[bytes]) -> list[Path]:
    """Writes files, with numbers where they are several, and makes their folder.

    Returns:
        The files written.

    Raises:
        InvalidRequest: One cannot be written.
    """

    def write() -> list[Path]:
        output.parent.mkdir(parents=True, exist_ok=True)
        paths = numbered(output, len(contents))
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
        return paths

    return writing(output, write)


def writing(output: Path, write: Callable[[], list[Path]]) -> list[Path]:
    """Calls `write`; what goes wrong in it is said in the user's words.

    Raises:
        InvalidRequest: A file cannot be written.
    """
    try:
        return write()
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"cannot write {output}: {error}", "BAD_OUTPUT", "--output") from error


def _json(document: dict[str, Any]) -> bytes:
    return (json.dumps(document) + "\n").encode()
