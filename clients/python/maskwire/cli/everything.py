"""maskwire everything"""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from maskwire import exports, overlay
from maskwire.client import Client
from maskwire.errors import InvalidRequest
from maskwire.everything import EverythingArguments, FoundMask
from maskwire.sources import Source


def run(
    image: str,
    *,
    image_id: str | None,
    output: Path,
    arguments: EverythingArguments,
    connection: dict[str, Any],
    as_json: bool,
) -> None:
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
        for update in client.generate_masks(image, image_id=image_id, **arguments):
            progress.update(task, completed=update.done, total=update.total, masks=len(update.masks))
    seconds = time.perf_counter() - started
    masks, found_in = update.masks, update.image
    document = exports.coco_dataset(masks, Path(image).name, found_in.width_px, found_in.height_px)
    try:
        files = _write(document, masks, Path(image), output)
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"cannot write {output}: {error}", "BAD_OUTPUT", "--output") from error
    if as_json:
        summary = {
            "image_id": found_in.image_id,
            "model": found_in.model,
            "masks": len(masks),
            "seconds": round(seconds, 3),
        }
        print(json.dumps({**summary, "files": [str(file) for file in files]}))
    else:
        print(f"{len(masks)} masks in {seconds:.1f} s: {', '.join(map(str, files[:2]))}{', ...' if files[2:] else ''}")
    if found_in.model == "demo":
        errors.print("demo model: rough masks, for trying out only; see 'maskwire models list' for SAM 2's")


def _write(document: dict[str, Any], masks: list[FoundMask], image: Path, output: Path) -> list[Path]:
    """Returns the files written: the data set first, then the overlay, then single masks."""
    is_folder = output.suffix.lower() != ".json"
    folder = output if is_folder else output.parent
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "coco.json" if is_folder else output]
    files[0].write_text(json.dumps(document) + "\n")
    if image.exists():
        files.append(folder / "overlay.png" if is_folder else output.with_suffix(".overlay.png"))
        overlay.draw_all(Source(image).picture(), [mask.array for mask in masks]).save(files[1])
    if is_folder:
        for number, mask in enumerate(masks):
            files.append(folder / f"mask-{number:04}.png")
            Image.fromarray(mask.array.view(np.uint8) * 255).save(files[-1])
    return files
