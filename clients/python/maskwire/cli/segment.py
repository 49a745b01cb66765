"""maskwire segment"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from maskwire.cli import formats
from maskwire.cli.formats import MaskFormat
from maskwire.client import Client
from maskwire.errors import InvalidRequest
from maskwire.prompts import Format

_OUTPUTS: dict[MaskFormat, tuple[Format, ...]] = {
    MaskFormat.PNG: ("png",),
    MaskFormat.RLE: ("rle",),
    MaskFormat.POLYGON: ("polygons",),
    MaskFormat.OVERLAY: ("rle",),
    MaskFormat.NPZ: ("rle", "logits"),
}


def run(
    image: str,
    *,
    image_id: str | None,
    positive: Sequence[tuple[float, ...]],
    negative: Sequence[tuple[float, ...]],
    box: tuple[float, ...] | None,
    every: bool,
    multimask: bool,
    form: MaskFormat | None,
    output: Path | None,
    connection: dict[str, Any],
    as_json: bool,
) -> None:
    errors = Console(stderr=True)
    form = formats.choose(form, output)
    to_stdout = str(output) == "-"
    if to_stdout and form not in (MaskFormat.RLE, MaskFormat.POLYGON):
        raise InvalidRequest(f"{form} is not text; give a file with --output", "BAD_OUTPUT", "--output")
    with Client(**connection) as client, errors.status(f"segmenting {image}"):
        result = client.segment(
            image,
            image_id=image_id,
            points=[*positive, *negative],
            labels=[1] * len(positive) + [0] * len(negative),
            box=box,
            multimask=multimask,
            every=every,
            outputs=_OUTPUTS[form],
        )
        files: list[Path] = []
        if not to_stdout:
            files = formats.write(result, form, output or Path(f"{Path(image).stem}{formats.ENDINGS[form]}"))
    if to_stdout:
        print(json.dumps(formats.document(result, form)))
    elif as_json:
        summary = {
            "image_id": result.image_id,
            "width": result.width,
            "height": result.height,
            "model": result.model,
            "cached": result.cached,
            "scores": [mask.score for mask in result.candidates],
            "object_score": result.object_score,
            "timings": result.timings,
            "files": [str(file) for file in files],
        }
        print(json.dumps(summary))
    else:
        origin = "cached" if result.cached else "encoded"
        scores = ", ".join(f"{mask.score:.2f}" for mask in result.candidates)
        written = ", ".join(map(str, files))
        print(f"{written}: score {scores}, {origin}, {result.timings['total_ms']:.0f} ms in the decoder")
    if result.model == "demo":
        errors.print("demo model: rough masks, for trying out only; see 'maskwire models list' for SAM 2's")
