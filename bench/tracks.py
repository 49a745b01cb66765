"""Two trackers with eight tracks of two objects each, beside SAM2VideoPredictor in process.

    python -m bench.tracks [--size 512] [--rounds 3] [--out bench/results/tracks.md]

Both follow the same clips, in turns of two frames, when every object has all seven memories. An object takes its share
of the whole time from asking to the last masks, its frame's embedding included. A store, an encoder and two trackers of
one thread each run as processes; sam2 has all cores. The model is sam2.1_hiera_tiny with seeded weights.
"""

import argparse
import contextlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import torch
from maskwire.cli.local_store import store_program
from maskwire.v1 import tracker_pb2 as pb
from maskwire.v1 import tracker_pb2_grpc, types_pb2
from numpy.typing import NDArray
from pycocotools import mask as coco
from rich.console import Console

from bench.harness import machine, measure, table
from bench.rows import tracking
from bench.subject import THREADS
from testing.paths import COFFEE, ROOT
from testing.reference.video import build_video, write_clip
from testing.servers import running_server, store_server
from testing.tracking import HEIGHT, WIDTH, Conversation, add_model, conversation, upload

MODEL = "seeded"
TRACKERS, TRACKS = 2, 8
CLICKS = {"one": (100.0, 75.0), "two": (60.0, 125.0)}
OBJECTS = TRACKS * len(CLICKS)
FILLED = 7  # frames after which an object has all of its memories
STEP = 2  # frames of a turn


@contextlib.contextmanager
def conversations(folder: Path, clips: list[Path], size: int) -> Iterator[list[Conversation]]:
    """Runs the servers, and opens a track of each clip on the trackers in turn."""
    add_model(folder, MODEL, size)
    options = ("--model", MODEL, "--models", str(folder), "--device", "cpu", "--backend", "torch")
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(store_server(store_program()))
        encoder, _ = stack.enter_context(running_server("maskwire_encoder", url, *options, cold=True))
        trackers = [
            stack.enter_context(
                running_server("maskwire_tracker", url, "--encoder", encoder, "--threads", "1", cold=True)
            )[0]
            for _ in range(TRACKERS)
        ]
        with grpc.insecure_channel(trackers[0]) as channel:
            stub = tracker_pb2_grpc.TrackerServiceStub(channel)
            for clip in clips:
                upload(stub, clip.name, [path.read_bytes() for path in sorted(clip.glob("*.jpg"))])
        as_sam2 = pb.TrackOptions(fill_hole_area=0)  # sam2 fills them with CUDA only
        yield [
            stack.enter_context(
                conversation(trackers[index % TRACKERS], model=MODEL, clip_id=clip.name, options=as_sam2)
            )[0]
            for index, clip in enumerate(clips)
        ]


def decoded(mask: types_pb2.Rle) -> NDArray[np.uint8]:
    """Returns a mask as pixels."""
    return coco.decode({"size": list(mask.size), "counts": mask.counts.encode()})


class Ours:
    """Follows all tracks at once on the trackers."""

    def __init__(self, talks: list[Conversation]) -> None:
        self._talks, self._threads = talks, ThreadPoolExecutor(len(talks))
        for talk in talks:
            for name, (x, y) in CLICKS.items():
                talk.click(name, 0, x, y)

    def follow(self, start: int, count: int) -> list[dict[str, Any]]:
        """Follows `count` frames. Returns of each track the masks of the last one, by object."""
        found = self._threads.map(lambda talk: talk.follow(start=start, most=count - 1)[-1], self._talks)
        return [{each.object_id: decoded(each.mask.rle) for each in frame.objects} for frame in found]


class Theirs:
    """Follows one clip after another in sam2's predictor."""

    def __init__(self, clips: list[Path], size: int) -> None:
        self._model = build_video("2.1", size)
        self._model.fill_hole_area = 0
        self._states = [self._model.init_state(str(clip)) for clip in clips]
        for state in self._states:
            for name, place in CLICKS.items():
                self._model.add_new_points_or_box(state, 0, name, points=np.array([place]), labels=np.ones(1, np.int32))

    def follow(self, start: int, count: int) -> list[dict[str, Any]]:
        """See `Ours.follow`."""
        found = []
        for state in self._states:
            *_, (_, names, masks) = self._model.propagate_in_video(state, start, count - 1)
            found.append({name: (mask[0] > 0).numpy() for name, mask in zip(names, masks, strict=True)})
        return found


def overlap(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> float:
    """Returns the lowest IoU of masks of the same object; 1 where both are empty."""
    lowest = 1.0
    for one, other in zip(ours, theirs, strict=True):
        for name, mask in other.items():
            either = np.count_nonzero(mask | (one[name] > 0))
            lowest = min(lowest, np.count_nonzero(mask & (one[name] > 0)) / either if either else 1.0)
    return lowest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=tracking.SIZE, help="side of the model's input in px")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "tracks.md")
    arguments = parser.parse_args()
    size, rounds, load, console = arguments.size, arguments.rounds, os.getloadavg()[0], Console(stderr=True)
    torch.set_num_threads(THREADS)
    frames = FILLED + STEP * rounds
    samples: dict[str, list[float]] = {"ours": [], "theirs": []}
    agreements = []
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        clips = [write_clip(folder / f"clip-{step}", COFFEE, frames, WIDTH, HEIGHT, step) for step in range(TRACKS)]
        with console.status("the first frames"):
            ways: dict[str, Ours | Theirs] = {
                "ours": Ours(stack.enter_context(conversations(folder, clips, size))),
                "theirs": Theirs(clips, size),
            }
            for way in ways.values():
                way.follow(0, FILLED)
        for turn in range(rounds):
            last = {}
            for key in list(ways)[:: 1 if turn % 2 else -1]:
                with console.status(f"turn {turn + 1} of {rounds}: {key}"):
                    started = time.perf_counter()
                    last[key] = ways[key].follow(FILLED + STEP * turn, STEP)
                    samples[key].append((time.perf_counter() - started) * 1e3 / OBJECTS / STEP)
            agreements.append(overlap(last["ours"], last["theirs"]))
    with console.status("one object in process"), tracking.rows(size) as rows:
        outcomes = [measure(row) for row in rows]
    ours, theirs = (statistics.median(samples[key]) for key in ("ours", "theirs"))
    about, command = machine(), f"python -m bench.tracks --size {size} --rounds {rounds}"
    versions = ", ".join(f"{package} {number}" for package, number in about["versions"].items())
    text = "\n".join(
        [
            f"{TRACKERS} trackers with {TRACKS} tracks and {OBJECTS} objects took {ours:.0f} ms an object and frame "
            f"at {size} px, SAM2VideoPredictor in process {theirs:.0f} ms: {ours / theirs:.2f} of its time (medians of "
            f"{rounds} turns; lowest IoU of a mask {min(agreements):.4f}).",
            "",
            "One object in process:",
            "",
            table(outcomes),
        ]
    )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(
        f"# Many objects beside SAM2VideoPredictor\n\nGenerated by `{command}` on {about['cores']} cores "
        f"({about['cpu']}), {about['date']}, Python {about['python']}, {versions}; all processes on the same machine. "
        f"Load average before: {load:.1f}.\n\n{text}\n"
    )
    document = {
        "command": command,
        **about,
        "load_before": load,
        "object_frame_ms": samples,
        "iou": agreements,
        "rows": [asdict(outcome) for outcome in outcomes],
    }
    arguments.out.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
    print(text)


if __name__ == "__main__":
    main()
