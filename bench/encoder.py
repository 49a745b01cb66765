"""Measures how many images an encoder serves, how exact they are, and what its queue costs.

    python -m bench.encoder [--device cuda] [--models sam2.1_hiera_tiny,...] [--sizes 1,2,4,8,16,32] [--seconds 5]
    python -m bench.encoder --quick      the demo model, small batches: a minute or two on a CPU

For each model and batch size it times, in turns, the forward pass of plain sam2, of sam2 under bf16 autocast and of
torch.compile, and Maskwire's from pixels to stored values; then the whole way from a JPEG's bytes to the store with
many callers. It also measures how far the masks are from those of sam2 in fp32, for single clicks and for several
prompts at once. Published models get seeded random weights unless --checkpoints names a folder that has them. Writes
Markdown and JSON.
"""

import argparse
import asyncio
import functools
import io
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from maskwire.cli.local_store import store_program
from maskwire_core import call_context
from maskwire_core.config import EncoderSettings
from maskwire_core.models.registry import DEMO, PUBLISHED
from maskwire_core.storage.store import Store
from maskwire_core.tenancy.tenant import EVERYBODY
from maskwire_encoder.backends.model import Model
from maskwire_encoder.checkpoints import loading
from maskwire_encoder.encoder import ImageEncoder
from maskwire_encoder.image_input.reading import read_image
from maskwire_encoder.spool import ImageFile
from maskwire_encoder.upload import accept
from PIL import Image
from rich.console import Console

from bench.deviation import Deviation
from bench.harness import machine
from bench.waiting import queue_cost
from testing.paths import ROOT
from testing.reference.predictor import build_random
from testing.servers import store_server
from testing.wire import header

PHOTOGRAPH = ROOT / "examples" / "coffee.jpg"
GFLOP = {"tiny": 292, "small": 360, "base_plus": 647, "large": 1823}
"""Of one image at 1024 px, neck included; a product and a sum are two."""


def photographs(count: int, width: int = 1800, height: int = 1200) -> list[bytes]:
    """Returns different JPEG files: enlarged parts of the sample photograph."""
    whole = Image.open(PHOTOGRAPH).convert("RGB")
    random, files = np.random.default_rng(3), []
    for _ in range(count):
        left, top = random.uniform(0, 0.4, 2) * whole.size
        box = (left, top, left + 0.6 * whole.width, top + 0.6 * whole.height)
        buffer = io.BytesIO()
        whole.resize((width, height), box=box).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


def source(name: str, given: Path | None, folder: Path) -> EncoderSettings:
    """Returns the settings with which an encoder serves a model.

    Args:
        name: Name of a model.
        given: Folder with checkpoints. A published model that it lacks gets seeded random weights.
        folder: For the random weights and the encoder's cache.
    """
    settings: dict[str, Any] = {"model": [name], "cache": folder}
    if name != DEMO:
        checkpoint = (given or folder) / f"{name}.pt"
        if not checkpoint.exists():
            checkpoint = folder / f"{name}.pt"
            torch.save({"model": build_random(PUBLISHED[name].config, seed=5).state_dict()}, checkpoint)
        settings["checkpoint"] = checkpoint
    return EncoderSettings(**settings)


def rate(runs: dict[str, Callable[[], Any]], images: int, seconds: float) -> dict[str, float]:
    """Runs several ways in turns. Returns the images per second of each, by its median time.

    Args:
        runs: Functions that encode a batch once, by name.
        images: Number of images in the batch.
        seconds: How long to run, for each way.
    """
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    end = time.perf_counter() + seconds * len(runs)
    while time.perf_counter() < end or min(map(len, taken.values())) < 3:
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            taken[name].append(time.perf_counter() - started)
    return {name: images / statistics.median(times) for name, times in taken.items()}


class Ways:
    """The usual ways to run the forward pass, with inputs and outputs on the device."""

    def __init__(self, model: Model, compiled: bool) -> None:
        sam = loading.build(model.source).model
        self._device = model.device
        self._sam = sam.to(model.device)
        self._compiled = torch.compile(self._sam.image_encoder) if compiled else None

    def runs(self, inputs: torch.Tensor) -> dict[str, Callable[[], Any]]:
        def stock() -> None:
            with torch.inference_mode():
                self._sam.forward_image(inputs)
            self._wait()

        def autocast(module: Any = self._sam.forward_image) -> None:
            with torch.inference_mode(), torch.autocast(self._device.type, torch.bfloat16):
                module(inputs)
            self._wait()

        ways: dict[str, Callable[[], Any]] = {"sam2 fp32": stock, "sam2 bf16": autocast}
        if self._compiled is not None:
            ways["torch.compile bf16"] = lambda: autocast(self._compiled)
        return ways

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


async def serve(model: Model, settings: EncoderSettings, store: Store, files: Sequence[bytes], callers: int) -> Any:
    """Encodes image files into the store for callers who each wait for their reply. Returns rates and latencies."""
    call_context.begin("").caller = EVERYBODY
    encoder = ImageEncoder(settings, store, [model])
    await encoder.publish_exports()
    headers = [header(data, namespace=f"run{time.monotonic_ns()}") for data in files]
    work, taken = iter(range(len(files))), list[float]()

    async def caller(number: int) -> None:
        for index in work:
            started = time.perf_counter()
            upload = accept(headers[index], encoder.models, settings, f"caller {number}", None)
            if await encoder.find(upload) is None:
                await encoder.encode(upload, ImageFile.of(files[index]), time.perf_counter())
            taken.append(time.perf_counter() - started)

    started = time.perf_counter()
    await asyncio.gather(*(caller(number) for number in range(callers)))
    elapsed = time.perf_counter() - started
    for made in headers:
        key = accept(made, encoder.models, settings, "", None).key
        await asyncio.to_thread(store.delete_embedding, made.namespace, key)
    tally = encoder.pipeline.model.tally
    return {
        "images_s": len(files) / elapsed,
        "ms": {f"p{p}": float(np.percentile(taken, p)) * 1e3 for p in (50, 90, 99)},
        "mean_batch": tally.done / tally.batches,
        "busy": tally.busy_s / elapsed,
    }


def measure(name: str, arguments: argparse.Namespace, store: Store, say: Callable[[str], None]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        settings = source(name, arguments.checkpoints, Path(folder)).model_copy(
            update={
                "device": arguments.device,
                "compile": arguments.compile,
                "max_batch": max(arguments.sizes),
                "queue_limit": 100_000,
                "readers": arguments.readers,
            }
        )
        (found,) = loading.find(settings)
        started = time.perf_counter()
        model = Model(found, settings)
        ready_s = time.perf_counter() - started
        others = Ways(model, arguments.torch_compile)
        deviation = Deviation(model, Image.open(PHOTOGRAPH).convert("RGB"), arguments.prompts)
    files = photographs(arguments.images)
    gflop = next((value for size, value in GFLOP.items() if name.endswith(size)), None)
    rows = []
    largest = model.largest
    for size in [size for size in arguments.sizes if size <= largest]:
        decoded = [read_image(data, 10**9).pixels for data in itertools.islice(itertools.cycle(files), size)]
        prepared = [model.prepare(pixels) for pixels in decoded]
        inputs = torch.randn(size, 3, model.image_size, model.image_size).to(model.device)
        runs: dict[str, Callable[[], Any]] = {
            **others.runs(inputs),
            "maskwire": functools.partial(model.encode, prepared),
        }
        row: dict[str, Any] = {"batch": size, "images_s": rate(runs, size, arguments.seconds)}
        model.largest = size
        row["served"] = asyncio.run(serve(model, settings, store, files, callers=max(4, 2 * size)))
        row["alone_ms"] = asyncio.run(serve(model, settings, store, files[:10], callers=1))["ms"]
        row["exactness"] = deviation.of_batch(size)
        if gflop is not None and arguments.peak_tflops:
            row["roofline"] = row["images_s"]["maskwire"] * gflop / 1e3 / arguments.peak_tflops
        rows.append(row)
        say(line(name, row))
    model.largest = 1
    cost = asyncio.run(queue_cost(model, settings, files))
    say(f"{name}: queue {cost}")
    return {"model": name, "ready_s": ready_s, "precision": model.backend.precision, "rows": rows, "queue": cost}


HEAD = (
    "| model | batch | sam2 fp32 | sam2 bf16 | torch.compile | maskwire | bf16 roofline | served images/s | busy "
    "| p50 / p90 / p99 ms | alone, p50 ms | single clicks: IoU, logit | several prompts: IoU, logit |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def line(name: str, row: dict[str, Any]) -> str:
    speed, served, exact = row["images_s"], row["served"], row["exactness"]
    ways = [speed["sam2 fp32"], speed["sam2 bf16"], speed.get("torch.compile bf16"), speed["maskwire"]]
    cells = ["-" if way is None else f"{way:.2f}" for way in ways]
    cells.append(f"{row['roofline']:.0%}" if "roofline" in row else "-")
    cells += [f"{served['images_s']:.2f}", f"{served['busy']:.0%}"]
    cells.append(" / ".join(f"{value:.0f}" for value in served["ms"].values()))
    cells.append(f"{row['alone_ms']['p50']:.0f}")
    cells += [f"{exact[kind]['iou']:.4f}, {exact[kind]['logit']:.1e}" for kind in ("single", "several")]
    return f"| {name} | {row['batch']} | {' | '.join(cells)} |"


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="as for the encoder")
    parser.add_argument("--models", default=",".join(name for name in PUBLISHED if name.startswith("sam2.1")))
    parser.add_argument("--checkpoints", type=Path, help="folder with published checkpoints")
    parser.add_argument("--sizes", type=numbers, default="1,2,4,8,16,32", help="batch sizes")
    parser.add_argument("--seconds", type=float, default=5, help="for each way and batch size")
    parser.add_argument("--images", type=int, default=200, help="different images that are served")
    parser.add_argument("--prompts", type=int, default=8, help="of each kind for each image")
    parser.add_argument("--readers", type=int, default=8, help="threads that decode JPEGs")
    parser.add_argument("--compile", action="store_true", help="Maskwire's own compiled package (CUDA)")
    parser.add_argument("--torch-compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--peak-tflops", type=float, default=0, help="the device's bf16 peak: 989 for an H100 SXM")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "encoder.md")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.models, arguments.sizes, arguments.images = DEMO, [1, 2, 4], 24
        arguments.seconds, arguments.prompts, arguments.torch_compile, arguments.readers = 1, 3, False, 2
    console = Console(stderr=True, width=200)
    console.print(HEAD, highlight=False)
    with store_server(store_program()) as url:
        store = Store(url)
        measured = [
            measure(name, arguments, store, lambda text: console.print(text, highlight=False))
            for name in arguments.models.split(",")
        ]
        store.close()
    about = machine()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    command = " ".join(["python -m bench.encoder", *sys.argv[1:]])
    lines = [
        f"Generated by `{command}` on {about['date']}; do not edit. {gpu}; {about['cpu']}, {about['cores']} cores; "
        f"torch {torch.__version__}. Images/s. sam2's ways are the forward pass alone, Maskwire's goes from pixels to "
        "stored values, and *served* from a JPEG's bytes (1800x1200) to the store, for twice as many callers as a "
        "batch holds.",
        "",
        HEAD,
        *(line(model["model"], row) for model in measured for row in model["rows"]),
        "",
        "| model | ready after | precision | 64 callers against a bare loop, time | added to an idle answer, p50 |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {model['model']} | {model['ready_s']:.1f} s | {model['precision']} | {model['queue']['loop_ratio']:.3f} "
        f"| {model['queue']['idle_added_ms_p50']:.2f} ms |"
        for model in measured
    ]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text("\n".join(lines) + "\n")
    document = {"command": command, **about, "gpu": gpu, "models": measured}
    arguments.out.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
