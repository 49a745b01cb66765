"""Output formats of `maskwire segment`."""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maskwire import exports, overlay
from maskwire.cli.inputs import Input
from maskwire.cli.options import MaskFormat
from maskwire.datasets.coco import CocoImage, coco_dataset
from maskwire.errors import InvalidRequest
from maskwire.mask import Mask
from maskwire.output_options import Format
from maskwire.results import Result


@dataclass(frozen=True)
class Segmented:
    """The segmented objects of an image."""

    source: Input  # the image
    results: Sequence[Result]  # one result for each object
    classes: Sequence[str]  # name of each object's class; "object" if none was given
    cached: bool  # whether the image's embedding was stored already

    @property
    def masks(self) -> list[tuple[int, Mask]]:
        """All masks, each with the index of its object."""
        return [(index, mask) for index, result in enumerate(self.results) for mask in result.candidates]


class _Format(NamedTuple):
    ending: str  # of output files without a given name: photo.mask.png for photo.jpg
    outputs: tuple[Format, ...]  # to request
    is_text: bool  # whether a terminal can show it


FORMATS: dict[MaskFormat, _Format] = {
    "png": _Format(".mask.png", ("rle", "png"), is_text=False),
    "rle": _Format(".rle.json", ("rle",), is_text=True),
    "polygon": _Format(".polygon.json", ("rle", "polygons"), is_text=True),
    "overlay": _Format(".overlay.png", ("rle",), is_text=False),
    "npz": _Format(".masks.npz", ("rle", "logits"), is_text=False),
    "coco": _Format(".coco.json", ("rle",), is_text=True),
    "labelme": _Format(".json", ("rle", "polygons"), is_text=True),
    "yolo": _Format(".txt", ("rle", "polygons"), is_text=True),
}

_BY_ENDING: dict[str, MaskFormat] = {".png": "png", ".json": "rle", ".npz": "npz", ".txt": "yolo"}


def choose_format(
    form: MaskFormat | None, output: Path | None, is_folder: bool, without_overlay: bool = False
) -> MaskFormat:
    """Chooses the format: the given one, else by the ending of the output file, which must be known. An overlay takes
    the whole picture, which may be refused."""
    if form == "overlay" and without_overlay:
        raise InvalidRequest(
            "an overlay needs all of the picture in memory, and --large-tiff is for pictures that do not fit; give "
            "another --format",
            "BAD_OUTPUT",
            "--format",
        )
    if form is not None:
        return form
    if output is None or is_folder:
        return "rle" if without_overlay else "overlay"
    if str(output) == "-":
        return "rle"
    if output.suffix.lower() not in _BY_ENDING:
        raise InvalidRequest(
            f"{output} does not end in {', '.join(_BY_ENDING)}; give the format with --format", "BAD_OUTPUT", "--output"
        )
    return _BY_ENDING[output.suffix.lower()]


def describe(segmented: Segmented, form: MaskFormat = "rle") -> dict[str, Any]:
    """Describes an image and its masks, as RLE or polygons, for --json, '-o -' and .json files."""

    def encode(mask: Mask) -> dict[str, Any]:
        if form != "polygon":
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
                "class": segmented.classes[index],
                "score": mask.score,
                **encode(mask),
            }
            for index, mask in segmented.masks
        ],
    }


def encode_files(segmented: Segmented, form: MaskFormat, classes: Sequence[str]) -> list[bytes]:
    """Encodes the output files of an image: one for each mask if they are pictures, else a single one.

    Args:
        segmented: The image and its objects.
        form: Output format; not COCO, which has one file for all images.
        classes: Names of all classes; YOLO numbers them in this order.
    """
    first, masks = segmented.results[0], segmented.masks
    match form:
        case "png":
            return [mask.png for _, mask in masks]
        case "overlay":
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
        case "npz":
            archive = io.BytesIO()
            np.savez_compressed(
                archive,
                masks=np.stack([mask.array for _, mask in masks]),
                scores=np.array([mask.score for _, mask in masks]),
                low_res_logits=np.stack([mask.logits for _, mask in masks]),
            )
            return [archive.getvalue()]
        case "labelme":
            shapes = [
                result.to_labelme(name, Path(segmented.source.text).name, group_id=number)
                for number, (result, name) in enumerate(zip(segmented.results, segmented.classes, strict=True))
            ]
            return [_json({**shapes[0], "shapes": [shape for each in shapes for shape in each["shapes"]]})]
        case "yolo":
            lines = [
                result.to_yolo(classes.index(name))
                for result, name in zip(segmented.results, segmented.classes, strict=True)
            ]
            return ["".join(line + "\n" for line in lines if line).encode()]
        case _:
            return [_json(describe(segmented, form))]


def encode_coco(images: Sequence[Segmented], classes: Sequence[str]) -> bytes:
    """Encodes a COCO data set of several images, with the best mask of each object."""
    described = [
        CocoImage(
            image.source.text,
            image.results[0].width,
            image.results[0].height,
            [result.best for result in image.results],
            image.classes,
        )
        for image in images
    ]
    return _json(coco_dataset(described, classes))


def write_files(output: Path, contents: Sequence[bytes]) -> list[Path]:
    """Writes one file, or several that are called mask-0.png, ... for mask.png, and creates their folder."""
    paths = [output]
    if len(contents) > 1:
        paths = [output.with_name(f"{output.stem}-{index}{output.suffix}") for index in range(len(contents))]

    def write() -> list[Path]:
        output.parent.mkdir(parents=True, exist_ok=True)
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
        return paths

    return writing(output, write)


def writing(output: Path, write: Callable[[], list[Path]]) -> list[Path]:
    """Calls a function that writes files, and reports its errors as errors of the option --output."""
    try:
        return write()
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"cannot write {output}: {error}", "BAD_OUTPUT", "--output") from error


def _json(document: dict[str, Any]) -> bytes:
    return (json.dumps(document) + "\n").encode()
