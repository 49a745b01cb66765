"""maskwire embed"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from maskwire.client import Client
from maskwire.errors import InvalidRequest, MaskwireError
from maskwire.results import EmbeddedImage

_ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}


def run(paths: Sequence[Path], *, image_id: str | None, model: str, connection: dict[str, Any], as_json: bool) -> None:
    files = _files(paths)
    if image_id is not None and len(files) != 1:
        raise InvalidRequest(f"--image-id names one image, but {len(files)} were found", "BAD_IMAGE_ID", "--image-id")
    encoded = stored = failed = 0
    columns = (
        TextColumn("embedding"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[last]}"),
    )
    with Client(**connection) as client, Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=len(files), last="")
        if image_id is not None:
            outcomes: Iterator[tuple[Path, EmbeddedImage | MaskwireError]] = iter(
                [(files[0], client.embed(files[0], image_id, model=model))]
            )
        else:
            outcomes = client.embed_many(files, model=model, bulk=len(files) > 1)
        for file, outcome in outcomes:
            if isinstance(outcome, EmbeddedImage):
                encoded, stored = encoded + (not outcome.cached), stored + outcome.cached
                line = {
                    "path": str(file),
                    "image_id": outcome.image_id,
                    "cached": outcome.cached,
                    "model": outcome.model,
                }
                text = f"{file}: {outcome.image_id} ({'stored already' if outcome.cached else 'encoded'})"
            else:
                failed += 1
                line = {"path": str(file), "error": {"message": outcome.message, "reason": outcome.reason}}
                text = f"{file}: error: {outcome}"
            progress.update(task, advance=1, last=file.name)
            progress.console.file.flush()
            print(json.dumps(line) if as_json else text, flush=True)
    if not as_json:
        print(f"{encoded} encoded, {stored} stored already, {failed} failed")
    if failed:
        sys.exit(1)


def _files(paths: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(file for file in path.rglob("*") if file.suffix.lower() in _ENDINGS)
        else:
            files.append(path)
    if not files:
        raise InvalidRequest(
            f"no images in {', '.join(map(str, paths))}; looked for {', '.join(sorted(_ENDINGS))}", "NO_IMAGES"
        )
    return files
