"""Measures one store, encoders and decoders on this machine, and simulates clusters of them.

    python -m bench.scale [--seconds 5] [--processes 1,2,4] [--simulate-only] [--out bench/results/scale.md]

First it measures the throughput of 1 to N encoder and decoder processes, and the service times of the store and the
decoder. Then it simulates clusters (bench.cluster) with these times; the time of an encoder is that of a GPU
(--encode-ms), which measurements on a CPU cannot tell. Writes Markdown, JSON and a plot, and needs the dependency group
`bench`.
"""

import argparse
import asyncio
import contextlib
import io
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from math import ceil
from pathlib import Path
from typing import Any, cast

import numpy as np
import redis
from maskwire import AsyncClient
from maskwire.cli.local_store import store_program
from maskwire_decoder.predictor import Predictor
from PIL import Image
from rich.console import Console

from bench.cluster import Cluster, Outcome, Times, simulate
from bench.deviation import as_prompt
from bench.harness import machine
from bench.subject import CLICK, HEIGHT, WIDTH, subject
from testing.paths import ROOT
from testing.servers import server, store_server

VALUE_BYTES = 8 << 20
CLIENTS = 3
DECODERS_PER_ENCODER = 10


def _hammer(url: str, kind: str, seconds: float, number: int, counts: Any) -> None:
    connection = redis.Redis.from_url(url, socket_read_size=1 << 20)
    value = bytes(VALUE_BYTES)
    connection.set("alias", b"x" * 64)
    connection.set(f"value{number}", value)
    calls: dict[str, Callable[[], Any]] = {
        "lookup": lambda: connection.get("alias"),
        "read": lambda: connection.get(f"value{number}"),
        "write": lambda: connection.set(f"value{number}", value),
    }
    call, count, end = calls[kind], 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        call()
        count += 1
    counts[number] = count


def store_times(seconds: float) -> dict[str, float]:
    """Returns the processor time of the store for each kind of request, in seconds, under a few concurrent clients."""
    found = {}
    with store_server(store_program(), "--maxmemory", "512mb") as url:
        for kind in ("lookup", "read", "write"):
            context = multiprocessing.get_context("spawn")
            counts = context.Array("l", CLIENTS)
            info = redis.Redis.from_url(url)
            clients = [context.Process(target=_hammer, args=(url, kind, seconds, n, counts)) for n in range(CLIENTS)]
            for client in clients:
                client.start()
            time.sleep(0.2)
            before = info.info("cpu")
            for client in clients:
                client.join()
            after = info.info("cpu")
            spent = sum(after[part] - before[part] for part in ("used_cpu_sys", "used_cpu_user"))
            found[kind] = spent / sum(cast(Iterable[int], counts))
    return found


def decoder_times(rounds: int = 15) -> dict[str, float]:
    """Returns the processor time of one thread for a new embedding and for a click, in seconds.

    The decoder is that of SAM 2.1 tiny; the published models differ only in their image encoders.
    """
    one = subject()
    predictor = Predictor(one.bundle, threads=1)
    tensors = {name: tensor.astype(np.float16) for name, tensor in one.tensors.items()}
    prompt = as_prompt({"points": [CLICK], "labels": [1]})
    prepared = predictor.prepare(tensors)
    found: dict[str, list[float]] = {"prepare": [], "decode": []}
    for _ in range(rounds):
        started = time.process_time()
        predictor.prepare(tensors)
        between = time.process_time()
        predictor.predict(prepared, prompt, WIDTH, HEIGHT, every=False)
        found["prepare"].append(between - started)
        found["decode"].append(time.process_time() - between)
    return {name: statistics.median(times) for name, times in found.items()}


def pictures(count: int) -> list[bytes]:
    """Returns different PNG files of 256x256 random pixels."""
    random, files = np.random.default_rng(time.monotonic_ns()), []
    for _ in range(count):
        buffer = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (256, 256, 3), np.uint8)).save(buffer, "PNG")
        files.append(buffer.getvalue())
    return files


@contextlib.contextmanager
def processes(url: str, encoders: int, decoders: int) -> Iterator[tuple[str, str]]:
    """Runs encoders and decoders of one thread each. Yields the addresses of both, separated by commas."""
    with contextlib.ExitStack() as stack:
        yield (
            ",".join(stack.enter_context(server("maskwire_encoder", url, "--threads", "1")) for _ in range(encoders)),
            ",".join(stack.enter_context(server("maskwire_decoder", url, "--threads", "1")) for _ in range(decoders)),
        )


async def encode_rate(encoder: str, seconds: float) -> float:
    """Returns how many new images are encoded per second, by the demo model."""
    async with AsyncClient(encoder, retry_s=60) as client:
        await asyncio.gather(*(client.embed(data) for data in pictures(4)))
        files, started = pictures(int(20 * seconds)), time.perf_counter()
        done = 0
        async for _, outcome in client.embed_many(files):
            if isinstance(outcome, Exception):
                raise outcome
            done += 1
            if time.perf_counter() - started > seconds:
                break
        return done / (time.perf_counter() - started)


async def click_rate(encoder: str, decoder: str, seconds: float) -> float:
    """Returns the clicks per second of 16 callers with an image each."""
    async with AsyncClient(encoder, decoder, retry_s=60) as client:
        files = pictures(16)
        for number, data in enumerate(files):
            await client.embed(data, f"image {number}")
        random, done = np.random.default_rng(1), 0
        end = 0.0

        async def click(number: int) -> None:
            nonlocal done
            while time.perf_counter() < end:
                x, y = random.uniform(0, 256, 2)
                await client.segment(f"image {number}", points=[(x, y)])
                done += 1

        for length in (1.0, seconds):  # the first fills the decoders' memory
            done, end = 0, time.perf_counter() + length
            started = time.perf_counter()
            await asyncio.gather(*(click(number) for number in range(16)))
        return done / (time.perf_counter() - started)


def throughput(counts: list[int], seconds: float, say: Callable[[str], None]) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {"encoders": {}, "decoders": {}}
    for count in counts:
        with store_server(store_program()) as url:
            with processes(url, count, 0) as (encoder, _):
                found["encoders"][count] = asyncio.run(encode_rate(encoder, seconds))
            with processes(url, 1, count) as (encoder, decoder):
                found["decoders"][count] = asyncio.run(click_rate(encoder, decoder, seconds))
        say(f"{count} process(es): {found['encoders'][count]:.2f} images/s, {found['decoders'][count]:.1f} clicks/s")
    return found


SHAPES = {
    "one store": (1, True, 128),
    "one store, no affinity": (1, False, 128),
    "one store, nothing kept in decoders": (1, True, 0),
    "cluster": (0, True, 128),
    "cluster, no affinity": (0, False, 128),
}
"""Store nodes (0: as many as are half busy with affinity), affinity, and embeddings of 22 MiB in a decoder's memory."""


def clusters(times: Times, sizes: list[int], clicks: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    found = []
    for decoders in sizes:
        users = int(0.5 * decoders / times.decode * Cluster.think_s)
        enough = ceil(users / Cluster.think_s * store_work(times, 1 / Cluster.clicks) / 0.5)
        for shape, (nodes, affinity, cached) in SHAPES.items():
            cluster = Cluster(
                encoders=max(1, decoders // DECODERS_PER_ENCODER),
                decoders=decoders,
                nodes=nodes or enough,
                affinity=affinity,
                cached=cached,
                users=users,
            )
            outcome = simulate(cluster, times, max(clicks, 5 * decoders))
            calm = replace(times, lookup=0, read=0, write=0)  # the reads when nobody waits for the store
            reads = simulate(cluster, calm, max(clicks, 5 * decoders)).reads
            # Above 1, queues grow without end.
            offered = users / cluster.think_s * store_work(times, reads) / cluster.nodes
            found.append({"shape": shape, **asdict(cluster), **described(outcome), "offered_to_store": offered})
            say(line(found[-1]))
    return found


def store_work(times: Times, reads: float) -> float:
    """Returns the seconds of store time per click: lookup, writes of new images, and the given share of reads."""
    return times.lookup + reads * times.read + times.write / Cluster.clicks


def described(outcome: Outcome) -> dict[str, Any]:
    return {
        "click_ms": {f"p{p}": outcome.quantile(outcome.click_ms, p / 100) for p in (50, 99)},
        "open_ms": {f"p{p}": outcome.quantile(outcome.open_ms, p / 100) for p in (50, 99)},
        "busy": outcome.busy,
        "reads": outcome.reads,
    }


HEAD = (
    "| cluster | encoders | decoders | store nodes | users | click, p50 / p99 ms | new image, p50 / p99 ms "
    "| busy: decoders | encoders | busiest node | offered to a node |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


def line(row: dict[str, Any]) -> str:
    saturated = row["offered_to_store"] > 1
    both = ["grows" if saturated else f"{row[k]['p50']:.0f} / {row[k]['p99']:.0f}" for k in ("click_ms", "open_ms")]
    busy = " | ".join(f"{row['busy'][kind]:.0%}" for kind in ("decoders", "encoders", "store"))
    return (
        f"| {row['shape']} | {row['encoders']:,} | {row['decoders']:,} | {row['nodes']} | {row['users']:,} | {both[0]} "
        f"| {both[1]} | {busy} | {row['offered_to_store']:.2f} |"
    )


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4))
    for shape in SHAPES:
        own = [row for row in rows if row["shape"] == shape]
        decoders = [row["decoders"] for row in own]
        left.plot(decoders, [row["offered_to_store"] for row in own], marker="o", label=shape)
        stable = [row for row in own if row["offered_to_store"] < 1]
        right.plot(
            [row["decoders"] for row in stable], [row["click_ms"]["p99"] for row in stable], marker="o", label=shape
        )
    left.axhline(1, color="grey", linestyle=":")
    left.set(xscale="log", yscale="log", xlabel="decoders, half busy", ylabel="work offered to a store node, s per s")
    right.set(xscale="log", ylim=(0, None), xlabel="decoders, half busy", ylabel="click, p99 in ms, where it is stable")
    left.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5, help="for each measurement")
    parser.add_argument("--processes", type=numbers, default="1,2,4")
    parser.add_argument("--encode-ms", type=float, default=5, help="of an image on a GPU: 5 is 200 images/s")
    parser.add_argument("--decoders", type=numbers, default="10,100,1000,10000", help="simulated")
    parser.add_argument("--clicks", type=int, default=20_000, help="simulated for each cluster, at least")
    parser.add_argument("--simulate-only", action="store_true", help="with the times in the existing JSON")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "scale.md")
    arguments = parser.parse_args()
    console = Console(stderr=True, width=200)

    def say(text: str) -> None:
        console.print(text, highlight=False)

    data_path = arguments.out.with_suffix(".json")
    if arguments.simulate_only:
        document = json.loads(data_path.read_text())
    else:
        document = {**machine(), "store_s": store_times(arguments.seconds), "decoder_s": decoder_times()}
        say(str({kind: document[kind] for kind in ("store_s", "decoder_s")}))
        document["throughput"] = throughput(arguments.processes, arguments.seconds, say)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        data_path.write_text(json.dumps(document, indent=1) + "\n")
    times = Times(**document["store_s"], **document["decoder_s"], encode=arguments.encode_ms / 1e3)
    say(HEAD)
    document["clusters"] = clusters(times, arguments.decoders, arguments.clicks, say)
    data_path.write_text(json.dumps(document, indent=1) + "\n")
    plot(document["clusters"], arguments.out.with_suffix(".png"))
    measured = ", ".join(f"{name} {seconds * 1e3:.3g} ms" for name, seconds in asdict(times).items())
    rates = document["throughput"]
    arguments.out.write_text(
        "\n".join(
            [
                f"Generated by `python -m bench.scale` on {document['date']}; do not edit. {document['cpu']}, "
                f"{document['cores']} cores.",
                "",
                "| processes | encoders, images/s | decoders, clicks/s |",
                "|---|---|---|",
                *(f"| {n} | {rates['encoders'][n]:.2f} | {rates['decoders'][n]:.1f} |" for n in rates["encoders"]),
                "",
                f"Simulated with: {measured}. Users click {Cluster.clicks} times on an image, every "
                f"{Cluster.think_s:g} s.",
                "",
                HEAD,
                *map(line, document["clusters"]),
            ]
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
