"""maskwire embed"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from maskwire.cli import inputs
from maskwire.cli.inputs import Input
from maskwire.client import Client
from maskwire.errors import InvalidRequest, MaskwireError
from maskwire.pictures import Stretch
from maskwire.results import EmbeddedImage

_IMAGES_AT_ONCE = 16


def run(
    paths: Sequence[str], *, image_id: str | None, model: str, stretch: str, connection: dict[str, Any], as_json: bool
) -> None:
    sources = _sources(paths)
    if image_id is not None and len(sources) != 1:
        raise InvalidRequest(f"--image-id names one image, but {len(sources)} were found", "BAD_IMAGE_ID", "--image-id")
    encoded = stored = failed = 0
    columns = (
        TextColumn("embedding"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[last]}"),
    )
    with (
        Client(**connection) as client,
        Progress(*columns, console=Console(stderr=True)) as progress,
        ThreadPoolExecutor(_IMAGES_AT_ONCE) as threads,
    ):
        task = progress.add_task("", total=len(sources), last="")

        def embed(source: Input) -> EmbeddedImage | MaskwireError:
            try:
                picture = source.loaded().image
                name = image_id or inputs.as_source(picture, stretch).content_name()
                return client.embed(picture, name, model=model, bulk=len(sources) > 1, stretch=cast(Stretch, stretch))
            except MaskwireError as error:
                return error

        for source, outcome in _in_order(threads, embed, sources):
            file = source.text
            if isinstance(outcome, EmbeddedImage):
                encoded, stored = encoded + (not outcome.cached), stored + outcome.cached
                line = {
                    "image": file,
                    "image_id": outcome.image_id,
                    "cached": outcome.cached,
                    "model": outcome.model,
                }
                text = f"{file}: {outcome.image_id} ({'stored already' if outcome.cached else 'encoded'})"
            else:
                failed += 1
                told = {"message": outcome.message, "reason": outcome.reason, "field": outcome.field}
                line = {"image": file, "error": told}
                text = f"{file}: error: {outcome}"
            progress.update(task, advance=1, last=file)
            progress.console.file.flush()
            print(json.dumps(line) if as_json else text, flush=True)
    if not as_json:
        print(f"{encoded} encoded, {stored} stored already, {failed} failed")
    if failed:
        sys.exit(1)


def _in_order(
    threads: ThreadPoolExecutor, embed: Callable[[Input], EmbeddedImage | MaskwireError], sources: Sequence[Input]
) -> Iterator[tuple[Input, EmbeddedImage | MaskwireError]]:
    try:
        yield from zip(sources, threads.map(embed, sources), strict=True)
    finally:  # after Ctrl-C or a closed pipe, what has not begun is not begun
        threads.shutdown(cancel_futures=True)


def _sources(paths: Sequence[str]) -> list[Input]:
    sources: list[Input] = []
    for text in paths:
        path = Path(text)
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.suffix.lower() in inputs.ENDINGS)
            sources += [Input(str(file), file, file.stem) for file in files]
            continue
        source = inputs.read(text)
        if source.is_stored:
            raise InvalidRequest(f"no such file: {text}", "NO_SUCH_FILE", "image")
        sources.append(source)
    if not sources:
        raise InvalidRequest(
            f"no images in {', '.join(paths)}; looked for {', '.join(inputs.ENDINGS)}", "NO_IMAGES", "image"
        )
    return sources
