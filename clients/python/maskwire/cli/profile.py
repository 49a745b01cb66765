"""maskwire profile"""

import json
import random
import statistics
import time
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from maskwire.client import Client
from maskwire.results import Result

_ENCODING = {
    "receive_ms": "receiving the file",
    "lookup_ms": "looking it up in the store",
    "read_ms": "file to pixels to the model's input",
    "queue_ms": "waiting for the model",
    "encode_ms": "the model",
    "store_ms": "packing and storing the embedding",
}
_CLICKING = {
    "fetch_ms": "finding the embedding",
    "queue_ms": "waiting for a decode thread",
    "decode_ms": "prompt encoder and mask decoder",
    "mask_ms": "logits to run lengths",
}


def run(image: str, *, clicks: int, connection: dict[str, Any], as_json: bool) -> None:
    errors = Console(stderr=True)
    with Client(**connection) as client:
        with errors.status(f"embedding {image}"):
            started = time.perf_counter()
            embedded = client.embed(image)
            encoding = _hops([(_since(started), embedded.timings)], _ENCODING)
        points = [(random.uniform(0, embedded.width), random.uniform(0, embedded.height)) for _ in range(clicks + 1)]
        first = _hops([_click(client, embedded.image_id, points[0])], _CLICKING)
        samples = [
            _click(client, embedded.image_id, point)
            for point in track(points[1:], "clicking", console=errors, transient=True)
        ]
    profile = {
        "image": {"width": embedded.width, "height": embedded.height, "model": embedded.model},
        "cached": embedded.cached,
        "embed": encoding,
        "first_click": first,
        "warm_click": _hops(samples, _CLICKING),
        "clicks": clicks,
    }
    if as_json:
        print(json.dumps(profile))
        return
    stored = "its embedding was stored already" if embedded.cached else "embedded now"
    title = f"{image}: {embedded.width}x{embedded.height}, model {embedded.model}, {stored}"
    table = Table("hop", "ms", f"median of {clicks}", title=title, title_justify="left")
    for name, hops, column in (
        ("embed", encoding, 1),
        ("first click", first, 1),
        ("warm click", profile["warm_click"], 2),
    ):
        table.add_section()
        for hop, milliseconds in hops.items():  # type: ignore[attr-defined]
            cells = ["", ""]
            cells[column - 1] = f"{milliseconds:.2f}"
            table.add_row(f"[bold]{name}[/bold]" if hop == "total" else f"  {hop}", *cells)
    Console().print(table)


def _click(client: Client, image_id: str, point: tuple[float, float]) -> tuple[float, dict[str, float]]:
    started = time.perf_counter()
    result: Result = client.segment(image_id=image_id, points=[point])
    return _since(started), result.timings


def _hops(samples: list[tuple[float, dict[str, float]]], stages: dict[str, str]) -> dict[str, float]:
    """Medians in milliseconds: the whole, as the caller sees it, and what it consists of."""
    hops = {"total": statistics.median(total for total, _ in samples)}
    for stage, name in stages.items():
        hops[name] = statistics.median(timings.get(stage, 0.0) for _, timings in samples)
    spent = [
        (total, timings.get("total_ms", 0.0), sum(timings.get(s, 0.0) for s in stages)) for total, timings in samples
    ]
    hops["the rest of the server"] = statistics.median(max(0.0, server - known) for _, server, known in spent)
    hops["network and client"] = statistics.median(total - server for total, server, _ in spent)
    return hops


def _since(started: float) -> float:
    return (time.perf_counter() - started) * 1e3
