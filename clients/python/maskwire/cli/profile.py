"""The command `maskwire profile`: where the time of an embed and of a click goes."""

import json
import random
import statistics
import time

from rich.console import Console
from rich.progress import track
from rich.table import Table

from maskwire.cli.options import ProfileOptions
from maskwire.client import Client
from maskwire.results import Result

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
            started = time.perf_counter()
            embedded = client.embed(options.image)
            encoding = _medians([(_ms_since(started), embedded.timings)], _ENCODE_STAGES)
        points = [(random.uniform(0, embedded.width), random.uniform(0, embedded.height)) for _ in range(clicks + 1)]
        first = _medians([_timed_click(client, embedded.image_id, points[0])], _CLICK_STAGES)
        samples = [
            _timed_click(client, embedded.image_id, point)
            for point in track(points[1:], "clicking", console=errors, transient=True)
        ]
    profile = {
        "image": {"width": embedded.width, "height": embedded.height, "model": embedded.model},
        "cached": embedded.cached,
        "embed": encoding,
        "first_click": first,
        "warm_click": _medians(samples, _CLICK_STAGES),
        "clicks": clicks,
    }
    if options.as_json:
        print(json.dumps(profile))
        return
    stored = "its embedding was stored already" if embedded.cached else "embedded now"
    title = f"{options.image}: {embedded.width}x{embedded.height}, model {embedded.model}, {stored}"
    table = Table("stage", "ms", f"median of {clicks}", title=title, title_justify="left")
    for name, stages, column in (
        ("embed", encoding, 1),
        ("first click", first, 1),
        ("warm click", profile["warm_click"], 2),
    ):
        table.add_section()
        for stage, milliseconds in stages.items():  # type: ignore[attr-defined]
            cells = ["", ""]
            cells[column - 1] = f"{milliseconds:.2f}"
            table.add_row(f"[bold]{name}[/bold]" if stage == "total" else f"  {stage}", *cells)
    Console().print(table)


def _timed_click(client: Client, image_id: str, point: tuple[float, float]) -> tuple[float, dict[str, float]]:
    """Clicks, and returns the time that the call took and the server's own timings, in milliseconds."""
    started = time.perf_counter()
    result: Result = client.segment(image_id=image_id, points=[point])
    return _ms_since(started), result.timings


def _medians(samples: list[tuple[float, dict[str, float]]], stages: dict[str, str]) -> dict[str, float]:
    """Computes the median milliseconds of whole calls, and of each stage.

    Args:
        samples: Time of each call as the caller measured it, and the server's timings of it.
        stages: Name of each timing of the server, and the words for it.
    """
    medians = {"total": statistics.median(total for total, _ in samples)}
    for stage, name in stages.items():
        medians[name] = statistics.median(timings.get(stage, 0.0) for _, timings in samples)
    spent = [
        (total, timings.get("total_ms", 0.0), sum(timings.get(s, 0.0) for s in stages)) for total, timings in samples
    ]
    medians["the rest of the server"] = statistics.median(max(0.0, server - known) for _, server, known in spent)
    medians["network and client"] = statistics.median(total - server for total, server, _ in spent)
    return medians


def _ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1e3
