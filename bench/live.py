"""Follows three objects through a long live stream: memory, time for each frame, and frames that are skipped.

    python -m bench.live [--frames 10000] [--hurried 2000] [--size 128] [--out bench/results/live.md]

First every frame is followed: a frame is sent when the masks of the one four frames before were read, so that the
tracker is always busy. Then frames come three times as fast as it follows them, as from a camera, and it may skip those
that are not the newest. A store, an encoder and a tracker of one thread each run as processes; the model is
sam2.1_hiera_tiny with seeded weights, whose memory is that of the real one but for its size.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from maskwire import AsyncClient, AsyncTrack
from maskwire.cli.free_ports import free_port
from maskwire.cli.local_store import store_program
from rich.console import Console

from bench.harness import machine
from testing.paths import COFFEE, ROOT
from testing.processes import resident_bytes
from testing.reference.video import write_clip
from testing.servers import running_server, store_server
from testing.tracking import HEIGHT, SIDE, WIDTH, add_model

MODEL = "seeded"
CLICKS = {"one": (100, 75), "two": (60, 125), "three": (150, 60)}
PICTURES = 32  # that go to and fro
PROCESSES = ("tracker", "encoder", "store", "caller")
IN_FLIGHT = 4
FASTER = 3  # times as many frames come as can be followed


@dataclass
class Servers:
    """A store, an encoder and a tracker that run, and the pictures of a camera."""

    redis_url: str
    encoder: str
    tracker: str
    metrics_port: int
    pids: dict[str, int]
    pictures: list[bytes]

    def resident_mib(self) -> dict[str, float]:
        """Returns the resident memory of each process in MiB, that of this one as "caller"."""
        return {name: resident_bytes(pid) / (1 << 20) for name, pid in self.pids.items()}

    def skipped(self) -> int:
        """Returns how many frames the tracker counts as skipped."""
        lines = httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics").text.splitlines()
        counted = [line for line in lines if line.startswith('maskwire_stream_answers_total{outcome="skipped"}')]
        return sum(int(float(line.rpartition(" ")[2])) for line in counted)


@dataclass
class Outcome:
    """What happened to a stream of frames.

    Attributes:
        sent: Frames that were sent.
        followed: Frames whose masks came, each once and in order.
        seconds: From the first frame to the last masks.
        ages_ms: Milliseconds from sending a frame to reading its masks.
        resident_mib: Resident memory by process, after so many frames.
    """

    sent: int = 0
    followed: int = 0
    seconds: float = 0
    ages_ms: list[float] = field(default_factory=list)
    resident_mib: dict[int, dict[str, float]] = field(default_factory=dict)

    @property
    def frame_ms(self) -> float:
        """Milliseconds for each followed frame."""
        return self.seconds * 1e3 / max(self.followed, 1)

    def age_ms(self, percent: int) -> float:
        """Returns a percentile of the ages."""
        ages = sorted(self.ages_ms)
        return ages[min(len(ages) - 1, len(ages) * percent // 100)]


@contextlib.contextmanager
def started(size: int) -> Iterator[Servers]:
    """Runs the servers, with a model for pictures of `size` px."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        add_model(folder, MODEL, size)
        pictures = write_clip(folder / "clip", COFFEE, PICTURES, WIDTH, HEIGHT, step=2)
        stores: list[Any] = []
        url = stack.enter_context(store_server(store_program(), started=stores))
        one = ("--threads", "1")  # several would spin while they wait for a core
        options = ("--model", MODEL, "--models", str(folder), "--device", "cpu", "--backend", "torch", *one)
        encoder, encoder_pid = stack.enter_context(running_server("maskwire_encoder", url, *options, cold=True))
        metrics_port = free_port()
        more = ("--encoder", encoder, "--metrics-port", str(metrics_port), *one)
        tracker, tracker_pid = stack.enter_context(running_server("maskwire_tracker", url, *more, cold=True))
        pids = dict(zip(PROCESSES, (tracker_pid, encoder_pid, stores[0].pid, os.getpid()), strict=True))
        files = [path.read_bytes() for path in sorted(pictures.glob("*.jpg"))]
        yield Servers(url, encoder, tracker, metrics_port, pids, files)


def camera(pictures: list[bytes]) -> Iterator[bytes]:
    """Yields pictures to and fro, without an end."""
    return itertools.cycle([*pictures, *pictures[-2:0:-1]])


async def prompted(track: AsyncTrack, first: bytes) -> None:
    """Sends the first frame, and clicks on three objects."""
    await track.add_frame(first)
    for name, (x, y) in CLICKS.items():
        await track.click(x, y, object=name)


async def every_frame(servers: Servers, frames: int, at: tuple[int, ...]) -> Outcome:
    """Follows every frame of a stream.

    Args:
        servers: The servers.
        frames: Number of frames.
        at: Numbers of frames after which memory is read.
    """
    found, room = Outcome(), asyncio.Semaphore(IN_FLIGHT)
    async with AsyncClient(servers.encoder, tracker=servers.tracker) as mw, mw.track(model=MODEL) as track:
        pictures = camera(servers.pictures)
        await prompted(track, next(pictures))
        found.sent, sent_at, started_at = 1, [time.perf_counter()], time.perf_counter()

        async def feed() -> AsyncIterator[bytes]:
            for picture in itertools.islice(pictures, frames - 1):
                await room.acquire()
                found.sent += 1
                sent_at.append(time.perf_counter())
                yield picture

        async for frame in track.live(feed(), skip=False):
            if frame.index != found.followed or set(frame.masks) != set(CLICKS):
                raise SystemExit(f"error: after {found.followed} frames came frame {frame.index}: {set(frame.masks)}")
            found.ages_ms.append((time.perf_counter() - sent_at[frame.index]) * 1e3)
            found.followed += 1
            room.release()
            if found.followed in at:
                found.resident_mib[found.followed] = servers.resident_mib()
                print(found.followed, found.resident_mib[found.followed], flush=True)
        found.seconds = time.perf_counter() - started_at
    return found


async def newest_first(servers: Servers, frames: int, period_s: float) -> Outcome:
    """Follows the newest of frames that come at a steady rate.

    Args:
        servers: The servers.
        frames: Number of frames.
        period_s: Seconds between two frames.
    """
    found = Outcome()
    async with AsyncClient(servers.encoder, tracker=servers.tracker) as mw, mw.track(model=MODEL) as track:
        pictures = camera(servers.pictures)
        await prompted(track, next(pictures))
        found.sent, started_at = 1, time.perf_counter()

        async def feed() -> AsyncIterator[bytes]:
            for picture in itertools.islice(pictures, frames - 1):
                await asyncio.sleep(max(0.0, started_at + found.sent * period_s - time.perf_counter()))
                found.sent += 1
                yield picture

        async for frame in track.live(feed()):
            assert frame.index == found.followed
            assert frame.captured_at_us is not None
            found.ages_ms.append(time.time() * 1e3 - frame.captured_at_us / 1e3)
            found.followed += 1
        found.seconds = time.perf_counter() - started_at
    return found


def report(every: Outcome, hurried: Outcome, skipped: int) -> str:
    """Returns the figures as Markdown."""
    lines = [f"| frames | {' | '.join(PROCESSES)} |", "|---|" + "---|" * len(PROCESSES)]
    for count, resident in every.resident_mib.items():
        shown = " | ".join(f"{resident[name]:.1f}" for name in PROCESSES)
        lines.append(f"| {count} | {shown} |")
    return "\n".join(
        [
            f"Resident memory in MiB while {every.followed} of {every.sent} frames were followed, "
            f"{every.frame_ms:.0f} ms each:",
            "",
            *lines,
            "",
            f"Masks came {every.age_ms(50):.0f} ms after their frame was sent (median; 99 %: "
            f"{every.age_ms(99):.0f} ms), with {IN_FLIGHT} frames on their way.",
            "",
            f"When frames came {FASTER} times as fast, {hurried.sent} were sent, {hurried.followed} followed and "
            f"{skipped} skipped, as the tracker's metric counts them. Masks came {hurried.age_ms(50):.0f} ms after "
            f"their frame was sent (median; 99 %: {hurried.age_ms(99):.0f} ms), {hurried.frame_ms:.0f} ms apart.",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--hurried", type=int, default=2_000)
    parser.add_argument("--size", type=int, default=SIDE, help="side of the model's input in px")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "live.md")
    arguments = parser.parse_args()
    frames, load = arguments.frames, os.getloadavg()[0]
    at = tuple(dict.fromkeys(max(1, frames * share // 100) for share in (1, 5, 10, 25, 50, 75, 100)))
    with started(arguments.size) as servers, Console(stderr=True).status(f"{frames} live frames ..."):
        every = asyncio.run(every_frame(servers, frames, at))
        before = servers.skipped()
        hurried = asyncio.run(newest_first(servers, arguments.hurried, every.frame_ms / 1e3 / FASTER))
        skipped = servers.skipped() - before
    if hurried.followed + skipped != hurried.sent:
        raise SystemExit(f"error: {hurried.sent} frames were sent, {hurried.followed} followed, {skipped} skipped")
    command = f"python -m bench.live --frames {frames} --hurried {arguments.hurried} --size {arguments.size}"
    about = machine()
    text = report(every, hurried, skipped)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(
        f"# Three objects on live frames\n\nGenerated by `{command}` on {about['cores']} cores ({about['cpu']}), "
        f"{about['date']}; all processes on the same machine. Load average before: {load:.1f}.\n\n{text}"
    )
    document = {
        "command": command,
        **about,
        "load_before": load,
        "every_frame": {"sent": every.sent, "followed": every.followed, "frame_ms": every.frame_ms},
        "resident_mib": every.resident_mib,
        "newest_first": {
            "sent": hurried.sent,
            "followed": hurried.followed,
            "skipped": skipped,
            **{f"age_p{percent}_ms": hurried.age_ms(percent) for percent in (50, 90, 99)},
        },
    }
    arguments.out.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
    print(text)


if __name__ == "__main__":
    main()
