"""The command `maskwire everything`: automatic mask generation."""

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console

from maskwire import overlay
from maskwire.automatic_masks import FoundMask
from maskwire.cli import formats, inputs
from maskwire.cli.everything_options import EverythingOptions
from maskwire.cli.inputs import Input
from maskwire.cli.output import note_demo, progress_bar
from maskwire.datasets.coco import CocoImage, coco_dataset
from maskwire.errors import InvalidRequest
from maskwire.pictures import Stretch
from maskwire.sources import Reading, Source

_PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
_FEW_MASKS = 5  # with fewer masks than this, the message explains which filters removed the others


def segment_everything(options: EverythingOptions) -> None:
    """Finds all masks of an image, and writes them as a data set, a picture, or a folder of both and single masks."""
    source, output = inputs.find_input(options.image), options.output
    to_stdout = str(output) == "-"
    _check_output(source, output, to_stdout and options.as_json, options.large.large_tiff)
    source = source.loaded()
    errors = Console(stderr=True)
    started = time.perf_counter()
    with (
        options.servers.client() as client,
        progress_bar(errors, "{task.description}", "{task.fields[masks]} masks") as progress,
        _told_how_to_go_on(options.journal),
    ):
        task = progress.add_task("reading", total=None, masks=0)
        image, _ = inputs.embed_input(client, source, options.embedding, options.large)
        progress.update(task, description="clicking")
        large: Any = {"tiles": options.tiles, "tile_px": options.tile_px, "journal": options.journal}
        for update in client.generate_masks(image, **asdict(options.parameters), **large):
            progress.update(task, completed=update.done, total=update.total, masks=len(update.masks))
    seconds = time.perf_counter() - started
    masks, found_in = update.masks, update.image
    image_name, classes = Path(source.text).name, ["object"] * len(masks)
    document = coco_dataset([CocoImage(image_name, found_in.width_px, found_in.height_px, masks, classes)], ["object"])
    files = []
    if not to_stdout:
        files = formats.writing(output, lambda: _write(document, masks, source, output, options.embedding.stretch))
    if to_stdout:
        print(json.dumps(document))
    elif options.as_json:
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
    if len(masks) < _FEW_MASKS and not (options.as_json and not to_stdout):
        print(update.explanation, file=sys.stderr)
    note_demo(errors, {found_in.model})


@contextlib.contextmanager
def _told_how_to_go_on(journal: Path | None) -> Iterator[None]:
    """Says where the work goes on that Ctrl-C interrupts, if it does."""
    try:
        yield
    except KeyboardInterrupt:
        if journal is not None:
            print(f"interrupted; the same command goes on from what is in {journal}", file=sys.stderr)
        raise


def _check_output(source: Input, output: Path, is_both: bool, is_large: bool) -> None:
    """Checks before the work begins that its result can be written."""
    if is_both:
        raise InvalidRequest(
            "'-o -' prints the data set and --json a summary; give one of them", "BAD_OUTPUT", "--output"
        )
    ending = output.suffix.lower()
    if is_large and str(output) != "-" and (ending != ".json" or output.is_dir()):
        raise InvalidRequest(
            f"with --large-tiff, the output is a .json file, since pictures of {source.text} may not fit into memory; "
            f"got {output}",
            "BAD_OUTPUT",
            "--output",
        )
    if ending in _PICTURE_ENDINGS and source.is_stored:
        raise InvalidRequest(
            f"an overlay needs the picture, and {source.text!r} is the name of a stored image; give the file, or a "
            ".json file with --output",
            "NO_PICTURE",
            "--output",
        )
    if ending and ending not in (".json", *_PICTURE_ENDINGS) and not output.is_dir():
        raise InvalidRequest(
            f"{output} is neither a .json file nor a picture ({', '.join(_PICTURE_ENDINGS)}); to use a folder whose "
            "name has a dot, create it first",
            "BAD_OUTPUT",
            "--output",
        )


def _write(
    document: dict[str, Any], masks: list[FoundMask], source: Input, output: Path, stretch: Stretch
) -> list[Path]:
    """Writes the output and returns its files: in a folder the data set first, then the overlay, then the masks."""
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


def _draw(masks: list[FoundMask], source: Input, stretch: Stretch) -> Image.Image:
    picture = Source(source.image, Reading(stretch=stretch)).picture()
    return overlay.draw_all(picture, [mask.array for mask in masks])
