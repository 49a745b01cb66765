"""The command `maskwire embed`."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from maskwire.cli import inputs
from maskwire.cli.inputs import Input
from maskwire.cli.options import EmbedOptions
from maskwire.cli.output import describe_error, progress_bar
from maskwire.cli.work import work_through
from maskwire.embedded_image import EmbeddedImage
from maskwire.errors import InvalidRequest
from maskwire.pictures.formats import ENDINGS

_IMAGES_AT_ONCE = 16


def embed_images(options: EmbedOptions) -> None:
    """Embeds images and prints a line for each; exits with 1 if one failed."""
    sources = _find_images(options.paths)
    if options.embedding.image_id is not None and len(sources) != 1:
        raise InvalidRequest(f"--image-id names one image, but {len(sources)} were found", "BAD_IMAGE_ID", "--image-id")
    encoded = stored = failed = 0
    with (
        options.servers.client() as client,
        progress_bar(Console(stderr=True), "embedding", "{task.fields[last]}") as progress,
    ):
        task = progress.add_task("", total=len(sources), last="")

        def embed(source: Input) -> EmbeddedImage:
            bulk = len(sources) > 1
            return inputs.embed_file(
                client,
                source,
                options.embedding,
                options.large,
                bulk=bulk,
                tiles=options.tiles,
                keep_source=options.keep_source,
            )

        for source, outcome in work_through(sources, embed, _IMAGES_AT_ONCE):
            file = source.text
            if isinstance(outcome, EmbeddedImage):
                encoded, stored = encoded + (not outcome.cached), stored + outcome.cached
                line: dict[str, Any] = {"image": file}
                line |= {name: getattr(outcome, name) for name in ("image_id", "cached", "model")}
                text = f"{file}: {outcome.image_id} ({'stored already' if outcome.cached else 'encoded'})"
            else:
                failed += 1
                line = {"image": file, "error": describe_error(outcome)}
                text = f"{file}: error: {outcome}"
            progress.update(task, advance=1, last=file)
            progress.console.file.flush()
            print(json.dumps(line) if options.as_json else text, flush=True)
    if not options.as_json:
        print(f"{encoded} encoded, {stored} stored already, {failed} failed")
    if failed:
        sys.exit(1)


def _find_images(paths: Sequence[str]) -> list[Input]:
    sources: list[Input] = []
    for text in paths:
        path = Path(text)
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.suffix.lower() in ENDINGS)
            sources += [Input(str(file), file, file.stem) for file in files]
            continue
        source = inputs.find_input(text)
        if source.is_stored:
            raise InvalidRequest(f"no such file: {text}", "NO_SUCH_FILE", "image")
        sources.append(source)
    if not sources:
        raise InvalidRequest(f"no images in {', '.join(paths)}; looked for {', '.join(ENDINGS)}", "NO_IMAGES", "image")
    return sources
