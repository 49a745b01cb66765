"""Measures how the cost of a click grows with image size, prompts in a request, and streams on one decoder.

    python -m bench.growth [--seconds 4] [--out bench/results/growth.md]

Writes a Markdown table and, beside it, every figure as JSON and a plot (which needs the dependency group `bench`). The
model has the shapes of SAM 2.1 tiny.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import decoder_pb2_grpc, types_pb2
from rich.console import Console

from bench.harness import machine
from bench.subject import fill, served
from testing.paths import ROOT

MEGAPIXELS = (0.25, 1, 4, 12, 24, 48, 96)
PROMPTS = (1, 2, 4, 8, 16, 32)
STREAMS = (1, 2, 4, 8, 16, 32, 64)


def prompts(random: np.random.Generator, count: int, width: int, height: int) -> list[types_pb2.Prompt]:
    """Returns prompts of one random click each."""
    spots = random.uniform((0, 0), (width, height), (count, 2))
    return [types_pb2.Prompt(points=[types_pb2.Point(x_px=x, y_px=y)]) for x, y in spots]


async def timed(call: Callable[[], Awaitable[Any]], seconds: float) -> list[float]:
    """Calls a function again and again. Returns the milliseconds of each call but the first."""
    await call()
    end, taken = time.perf_counter() + seconds, []
    while (started := time.perf_counter()) < end:
        await call()
        taken.append((time.perf_counter() - started) * 1e3)
    return taken


async def stream(stub: Any, seconds: float, seed: int) -> list[float]:
    """Opens a stream and clicks on it. Returns the milliseconds of each click."""
    random = np.random.default_rng(seed)
    call = stub.SegmentStream()
    await call.write(pb.SegmentStreamRequest(set_image=pb.SetImage(image_id="photo")))
    await call.read()

    async def click() -> None:
        (prompt,) = prompts(random, 1, 1800, 1200)
        await call.write(pb.SegmentStreamRequest(segment=pb.StreamPrompts(prompts=[prompt])))
        answer = await call.read()
        assert answer.HasField("result"), answer

    taken = await timed(click, seconds)
    await call.done_writing()
    return taken


async def measure(address: str, url: str, seconds: float, console: Console) -> dict[str, list[dict[str, float]]]:
    random = np.random.default_rng(0)
    figures: dict[str, list[dict[str, float]]] = {"megapixels": [], "prompts": [], "streams": []}

    def note(kind: str, size: float, taken: list[float], **more: float) -> None:
        taken = sorted(taken)
        entry = {
            "size": size,
            "p50_ms": statistics.median(taken),
            "p95_ms": taken[int(0.95 * (len(taken) - 1))],
            **more,
        }
        figures[kind].append(entry)
        console.print(kind, entry, highlight=False)

    async with grpc.aio.insecure_channel(address) as channel:
        stub = decoder_pb2_grpc.DecoderServiceStub(channel)
        for megapixels in MEGAPIXELS:
            height = round((megapixels * 1e6 * 2 / 3) ** 0.5)
            width = height * 3 // 2
            name = f"{megapixels}"
            fill(url, "fp16", name, width, height)
            taken = await timed(
                lambda: stub.Segment(
                    pb.SegmentRequest(image_id=name, prompts=prompts(random, 1, width, height))  # noqa: B023
                ),
                seconds,
            )
            note("megapixels", megapixels, taken)
        for count in PROMPTS:
            taken = await timed(
                lambda: stub.Segment(
                    pb.SegmentRequest(image_id="photo", prompts=prompts(random, count, 1800, 1200))  # noqa: B023
                ),
                seconds,
            )
            note("prompts", count, taken, per_prompt_ms=statistics.median(taken) / count)
        for count in STREAMS:
            each = await asyncio.gather(*(stream(stub, seconds, seed) for seed in range(count)))
            taken = [one for each_taken in each for one in each_taken]
            note("streams", count, taken, clicks_per_s=len(taken) / max(sum(one) / 1e3 for one in each))
    return figures


def plot(figures: dict[str, list[dict[str, float]]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawing, axes = pyplot.subplots(1, 3, figsize=(13, 3.8), constrained_layout=True)
    labels = {"megapixels": "image size, MP", "prompts": "prompts in a request", "streams": "streams on one decoder"}
    for axis, (kind, label) in zip(axes, labels.items(), strict=True):
        sizes = [entry["size"] for entry in figures[kind]]
        for key in ("p50_ms", "p95_ms"):
            axis.plot(sizes, [entry[key] for entry in figures[kind]], marker="o", label=key[:3])
        axis.set(xscale="log", xlabel=label, ylabel="ms", ylim=(0, None))
        axis.set_xticks(sizes, [f"{size:g}" for size in sizes])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend()
    drawing.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4, help="of each measurement")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "growth.md")
    arguments = parser.parse_args()
    console = Console(stderr=True)
    with served("fp16") as (address, url):
        figures = asyncio.run(measure(address, url, arguments.seconds, console))
    about = machine()
    lines = [
        f"Generated by `python -m bench.growth` on {about['date']}; do not edit. {about['cpu']}, {about['cores']} "
        "cores, the client and the store on them too. Milliseconds of a warm click, from prompt to RLE.",
        "",
        "| what grows | size | p50 | p95 | |",
        "|---|---|---|---|---|",
    ]
    for kind, entries in figures.items():
        for entry in entries:
            more = ", ".join(
                f"{entry[key]:.1f} {text}"
                for key, text in (("per_prompt_ms", "ms a prompt"), ("clicks_per_s", "clicks/s"))
                if key in entry
            )
            lines.append(f"| {kind} | {entry['size']:g} | {entry['p50_ms']:.1f} | {entry['p95_ms']:.1f} | {more} |")
    arguments.out.write_text("\n".join(lines) + "\n\n![the same as a plot](growth.png)\n")
    arguments.out.with_suffix(".json").write_text(json.dumps({**about, "figures": figures}, indent=1) + "\n")
    plot(figures, arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
