"""maskwire everything"""

import json
import sys
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from maskwire import exports, overlay
from maskwire.automatic_masks import EverythingArguments, FoundMask
from maskwire.cli import formats, inputs
from maskwire.cli.inputs import Input
from maskwire.cli.output import note_demo
from maskwire.client import Client
from maskwire.errors import InvalidRequest
from maskwire.pictures import Stretch
from maskwire.sources import Reading, Source

_PICTURES = (".png", ".jpg", ".jpeg", ".webp")
_FEW = 5  # with fewer masks than this, why the others were removed is said


def run(
    image: str,
    *,
    image_id: str | None,
    model: str,
    stretch: str,
    output: Path,
    arguments: EverythingArguments,
    connection: dict[str, Any],
    as_json: bool,
) -> None:
    source = inputs.read(image)
    to_stdout = str(output) == "-"
    _check(source, output, to_stdout and as_json)
    source = source.loaded()
    errors = Console(stderr=True)
    columns = (
        TextColumn("clicking"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[masks]} masks"),
    )
    started = time.perf_counter()
    with Client(**connection) as client, Progress(*columns, console=errors) as progress:
        task = progress.add_task("", total=None, masks=0)
        name, _ = inputs.embedded(client, source, image_id, model, stretch)
        for update in client.generate_masks(name, **arguments):
            progress.update(task, completed=update.done, total=update.total, masks=len(update.masks))
    seconds = time.perf_counter() - started
    masks, found_in = update.masks, update.image
    document = exports.coco_dataset(masks, Path(source.text).name, found_in.width_px, found_in.height_px)
    files = [] if to_stdout else formats.writing(output, lambda: _write(document, masks, source, output, stretch))
    if to_stdout:
        print(json.dumps(document))
    elif as_json:
        summary = {
            "image": source.text,
            "image_id": found_in.image_id,
            "width": found_in.width_px,
            "height": found_in.height_px,
            "model": found_in.model,
            "masks": len(masks),
            "removed": dict(update.removed),
            "explanation": update.explanation,
            "seconds": round(seconds, 3),
        }
        print(json.dumps({**summary, "files": [str(file) for file in files]}))
    else:
        print(f"{len(masks)} masks in {seconds:.1f} s: {', '.join(map(str, files[:2]))}{', ...' if files[2:] else ''}")
    if len(masks) < _FEW and not (as_json and not to_stdout):
        print(update.explanation, file=sys.stderr)
    note_demo(errors, {found_in.model})


def _check(source: Input, output: Path, is_both: bool) -> None:
    """Finds out before the work whether its result can be written.

    Raises:
        InvalidRequest: It cannot.
    """
    if is_both:
        raise InvalidRequest(
            "'-o -' prints the data set and --json a summary; give one of them", "BAD_OUTPUT", "--output"
        )
    ending = output.suffix.lower()
    if ending in _PICTURES and source.is_stored:
        raise InvalidRequest(
            f"a picture of the masks needs the image's, and {source.text!r} is the name of a stored image; give the "
            "file, or a .json file with --output",
            "NO_PICTURE",
            "--output",
        )
    if ending and ending not in (".json", *_PICTURES) and not output.is_dir():
        raise InvalidRequest(
            f"{output} is neither a .json file nor a picture ({', '.join(_PICTURES)}); for a folder whose name has a "
            "dot, make it first",
            "BAD_OUTPUT",
            "--output",
        )


def _write(document: dict[str, Any], masks: list[FoundMask], source: Input, output: Path, stretch: str) -> list[Path]:
    """Returns the files written: of a folder the data set first, then the overlay, then single masks."""
    is_folder = output.is_dir() or not output.suffix
    folder = output if is_folder else output.parent
    folder.mkdir(parents=True, exist_ok=True)
    if not is_folder and output.suffix.lower() != ".json":
        _draw(masks, source, stretch).save(output)
        return [output]
    files = [folder / "coco.json" if is_folder else output]
    files[0].write_text(json.dumps(document) + "\n")
    if is_folder:
        if not source.is_stored:
            files.append(folder / "overlay.png")
            _draw(masks, source, stretch).save(files[-1])
        for number, mask in enumerate(masks):
            files.append(folder / f"mask-{number:04}.png")
            Image.fromarray(mask.array.view(np.uint8) * 255).save(files[-1])
    return files


def _draw(masks: list[FoundMask], source: Input, stretch: str) -> Image.Image:
    return overlay.draw_all(
        Source(source.image, Reading(stretch=cast(Stretch, stretch))).picture(), [mask.array for mask in masks]
    )
