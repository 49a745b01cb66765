"""Results as files."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from maskwire.errors import InvalidRequest
from maskwire.results import Mask, Result


class MaskFormat(StrEnum):
    """What `maskwire segment` writes."""

    PNG = "png"
    RLE = "rle"
    POLYGON = "polygon"
    OVERLAY = "overlay"
    NPZ = "npz"


# Of files whose name the user does not give: photo.mask.png for photo.jpg.
ENDINGS = {
    MaskFormat.PNG: ".mask.png",
    MaskFormat.RLE: ".rle.json",
    MaskFormat.POLYGON: ".polygon.json",
    MaskFormat.OVERLAY: ".overlay.png",
    MaskFormat.NPZ: ".masks.npz",
}
_BY_ENDING = {".png": MaskFormat.PNG, ".json": MaskFormat.RLE, ".npz": MaskFormat.NPZ}


def choose(form: MaskFormat | None, output: Path | None) -> MaskFormat:
    """The format that is wanted: as said, or as the output's ending says."""
    if form is not None:
        return form
    if output is None:
        return MaskFormat.OVERLAY
    if str(output) == "-":
        return MaskFormat.RLE
    if output.suffix.lower() not in _BY_ENDING:
        raise InvalidRequest(
            f"{output} does not end in {', '.join(_BY_ENDING)}; say --format", "BAD_OUTPUT", "--output"
        )
    return _BY_ENDING[output.suffix.lower()]


def document(result: Result, form: MaskFormat) -> dict[str, Any]:
    """Masks as RLE or polygons, for a JSON file."""

    def shape(mask: Mask) -> dict[str, Any]:
        if form == MaskFormat.RLE:
            return {"rle": mask.rle}
        contours = [{"points": points.tolist(), "is_hole": is_hole} for points, is_hole in mask.contours]
        return {"polygons": [c["points"] for c in contours if not c["is_hole"]], "contours": contours}

    return {
        "image_id": result.image_id,
        "width": result.width,
        "height": result.height,
        "model": result.model,
        "masks": [{"score": mask.score, **shape(mask)} for mask in result.candidates],
    }


def write(result: Result, form: MaskFormat, output: Path) -> list[Path]:
    """Writes a result. Several candidates as pictures get a number each: mask-0.png, mask-1.png, ...

    Returns:
        The files written.

    Raises:
        InvalidRequest: A file cannot be written, or its ending is not that of a picture.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        return _write(result, form, output)
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"cannot write {output}: {error}", "BAD_OUTPUT", "--output") from error


def _write(result: Result, form: MaskFormat, output: Path) -> list[Path]:
    masks = result.candidates
    if form in (MaskFormat.RLE, MaskFormat.POLYGON):
        output.write_text(json.dumps(document(result, form)) + "\n")
        return [output]
    if form == MaskFormat.NPZ:
        arrays = np.stack([mask.array for mask in masks])
        scores, logits = [mask.score for mask in masks], [mask.logits for mask in masks]
        with output.open("wb") as archive:  # given a name, numpy would append its own ending
            np.savez_compressed(archive, masks=arrays, scores=scores, low_res_logits=logits)
        return [output]
    files = [output] if len(masks) == 1 else [_numbered(output, index) for index in range(len(masks))]
    for file, mask in zip(files, masks, strict=True):
        if form == MaskFormat.PNG:
            file.write_bytes(mask.png)
        else:
            result.overlay(mask=mask).save(file)
    return files


def _numbered(output: Path, index: int) -> Path:
    return output.with_name(f"{output.stem}-{index}{output.suffix}")
