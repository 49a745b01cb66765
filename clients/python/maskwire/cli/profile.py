"""The command `maskwire profile`: where the time of an embed and of a click goes."""

import json
import random
import statistics
import time
from collections.abc import Callable
from typing import TypeVar

from rich.console import Console
from rich.progress import track
from rich.table import Table

from maskwire.cli.options import ProfileOptions
from maskwire.embedded_image import EmbeddedImage
from maskwire.results import Result

Timed = TypeVar("Timed", EmbeddedImage, Result)

_ENCODE_STAGES = {
    "receive_ms": "receiving the file",
    "lookup_ms": "looking it up in the store",
    "read_ms": "decoding and resizing the image",
    "queue_ms": "waiting for the model",
    "encode_ms": "the model",
    "store_ms": "packing and storing the embedding",
}
_CLICK_STAGES = {
    "fetch_ms": "fetching the embedding",
    "queue_ms": "waiting for a decode thread",
    "decode_ms": "prompt encoder and mask decoder",
    "mask_ms": "thresholding and run-length encoding",
}


def profile_stages(options: ProfileOptions) -> None:
    """Embeds an image, clicks on it, and prints the time of each stage as a table or JSON."""
    errors, clicks = Console(stderr=True), options.clicks
    with options.servers.client() as client:
        with errors.status(f"embedding {options.image}"):
            embedded, encoding = _timed(lambda: client.embed(options.image), _ENCODE_STAGES)

        def click() -> dict[str, float]:
            point = (random.uniform(0, embedded.width), random.uniform(0, embedded.height))
            return _timed(lambda: client.segment(image_id=embedded.image_id, points=[point]), _CLICK_STAGES)[1]

        first = click()
        warm = [click() for _ in track(range(clicks), "clicking", console=errors, transient=True)]
    medians = {stage: statistics.median(each[stage] for each in warm) for stage in first}
    profile = {
        "image": {"width": embedded.width, "height": embedded.height, "model": embedded.model},
        "cached": embedded.cached,
        "embed": encoding,
        "first_click": first,
        "warm_click": medians,
        "clicks": clicks,
    }
    if options.as_json:
        print(json.dumps(profile))
        return
    stored = "its embedding was stored already" if embedded.cached else "embedded now"
    title = f"{options.image}: {embedded.width}x{embedded.height}, model {embedded.model}, {stored}"
    table = Table("stage", "ms", f"median of {clicks}", title=title, title_justify="left")
    for name, stages in (("embed", encoding), ("first click", first), ("warm click", medians)):
        table.add_section()
        for stage, milliseconds in stages.items():
            cells = ["", f"{milliseconds:.2f}"] if stages is medians else [f"{milliseconds:.2f}"]
            table.add_row(f"[bold]{name}[/bold]" if stage == "total" else f"  {stage}", *cells)
    Console().print(table)


def _timed(call: Callable[[], Timed], stages: dict[str, str]) -> tuple[Timed, dict[str, float]]:
    """Makes a call. Returns its result, and the milliseconds that it took and that its stages took."""
    started = time.perf_counter()
    result = call()
    total, timings = (time.perf_counter() - started) * 1e3, result.timings
    known = {name: timings.get(stage, 0.0) for stage, name in stages.items()}
    server = timings.get("total_ms", 0.0)
    rest = {"the rest of the server": max(0.0, server - sum(known.values())), "network and client": total - server}
    return result, {"total": total, **known, **rest}
