"""Measures everything mode over the tiles of a large picture of known objects, and in the picture as a whole.

    python -m bench.large [--side 20000] [--objects 500] [--seed 24] [--tile-px 256] [--points-per-side 24]
                          [--kill-at 0.3]

The picture is a tiled TIFF (bench/large_picture.py), read by windows. The client is killed (SIGKILL) at --kill-at of
its clicks and started again with the same journal. Objects count as found at an IoU of 0.8. Needs a gigabyte of disk
in out/; an hour on two cores, and minutes with --side 4000 --objects 20.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from maskwire import Client, LargeTiff
from maskwire.automatic_masks import FoundMask
from maskwire.v1 import decoder_pb2
from pycocotools import mask as coco
from rich.console import Console

from bench.harness import machine
from bench.large_picture import Ellipse, make
from testing.paths import ROOT
from testing.servers import Up, up

FOUND = 0.8
STABLE = 0.8  # stability of masks that a user would keep; that of what a tile nearly cuts is lower
_AT_ONCE = 500
_MOST_STARTS = 30
SIZES = ((15, 30), (30, 100), (100, 300), (300, 1000), (1000, 3001))


def find(picture: Path, arguments: argparse.Namespace) -> None:
    """What the client does, in a process of its own: it finds everything, and says how far it is after each tile."""
    options: Any = {"tile_px": arguments.tile_px, "points_per_side": arguments.points_per_side}
    with Client() as client:
        for update in client.generate_masks(LargeTiff(picture), tiles=True, journal=arguments.journal, **options):
            print(update.done / update.total, len(update.masks), flush=True)
        write(update.masks, arguments.results)


def write(masks: list[FoundMask], path: Path) -> None:
    """Keeps masks in a file."""
    answer = decoder_pb2.GenerateMasksResponse(found=[mask.message() for mask in masks])
    path.write_bytes(answer.SerializeToString())


def read(path: Path) -> list[FoundMask]:
    """Reads what `write` wrote."""
    return [FoundMask(each) for each in decoder_pb2.GenerateMasksResponse.FromString(path.read_bytes()).found]


def score(masks: list[FoundMask], objects: list[Ellipse], side: int) -> dict[str, Any]:
    """Counts objects with a mask of an IoU of `FOUND`, and further masks of the same objects."""
    truths = [each.rle(side) for each in objects]
    found: Any = [{"size": [side, side], "counts": mask.rle["counts"].encode()} for mask in masks]
    ious = np.asarray(coco.iou(found, truths, [False] * len(truths))) if found else np.zeros((0, len(truths)))
    matches = (ious >= FOUND).sum(axis=0)
    matches_of_stable = (ious[[mask.stability_score >= STABLE for mask in masks]] >= FOUND).sum(axis=0)
    by_size = {}
    for low, high in SIZES:
        chosen = [index for index, each in enumerate(objects) if low <= each.length < high]
        by_size[f"{low} to {high - 1} px"] = [int((matches[chosen] > 0).sum()), len(chosen)]
    return {
        "objects": len(objects),
        "found": int((matches > 0).sum()),
        "duplicates": int((matches - 1).clip(min=0).sum()),
        "alike": alike(found),
        "masks": len(masks),
        "stable": sum(mask.stability_score >= STABLE for mask in masks),
        "stable_found": int((matches_of_stable > 0).sum()),
        "by_size": by_size,
    }


def alike(found: Any) -> int:
    """Counts pairs of masks with an IoU of `FOUND`, some masks at a time: all pairs take gigabytes."""
    pairs = 0
    for start in range(0, len(found), _AT_ONCE):
        ious = np.asarray(coco.iou(found[start : start + _AT_ONCE], found, [False] * len(found)))
        pairs += int((np.triu(ious, start + 1) >= FOUND).sum())
    return pairs


class Run:
    """A client process, watched."""

    def __init__(self, stack: Up, words: list[str]) -> None:
        self.peak_bytes = 0
        self.progress = 0.0
        self.cpu_s = 0.0
        self.code = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.large", *words],
            cwd=ROOT,
            env={**os.environ, **stack.environment},
            stdout=subprocess.PIPE,
            text=True,
        )

    def watch(self, kill_at: float, console: Console) -> None:
        """Returns when the process has ended, or was killed at that share of its work."""
        assert self._process.stdout is not None
        shown = time.monotonic()
        for line in self._process.stdout:
            progress, masks = line.split()
            self.progress = float(progress)
            status = Path(f"/proc/{self._process.pid}/status").read_text()
            peak = next((each for each in status.splitlines() if each.startswith("VmHWM")), "VmHWM: 0 kB")
            self.peak_bytes, self.cpu_s = max(self.peak_bytes, int(peak.split()[1]) << 10), cpu_s(self._process.pid)
            if time.monotonic() - shown > 10:
                shown = time.monotonic()
                console.print(f"{self.progress:.1%}, {masks} masks, {self.peak_bytes >> 20} MiB", highlight=False)
            if kill_at < 1 and self.progress >= kill_at:
                os.kill(self._process.pid, signal.SIGKILL)
                break
        self.code = self._process.wait()


def cpu_s(pid: int) -> float:
    """Returns the processor time of a process so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Makes the picture, and looks at it in both ways."""
    folder = ROOT / "out" / "large"
    picture = folder / f"{arguments.side}-{arguments.objects}-{arguments.seed}.tif"
    started = time.perf_counter()
    objects = make(picture, arguments.side, arguments.objects, arguments.seed)
    console.print(f"the picture: {picture.stat().st_size >> 20} MiB, {time.perf_counter() - started:.0f} s")
    journal, results = picture.with_suffix(".journal"), picture.with_suffix(".found")
    if not arguments.go_on:
        journal.unlink(missing_ok=True)
    words = ["--find", str(picture), "--journal", str(journal), "--results", str(results)]
    words += ["--tile-px", str(arguments.tile_px), "--points-per-side", str(arguments.points_per_side)]
    with up() as stack:
        started, idle = time.perf_counter(), {name: cpu_s(pid) for name, pid in stack.pids.items()}
        runs = [Run(stack, words)]
        runs[0].watch(arguments.kill_at, console)
        killed = time.perf_counter() - started
        while runs[-1].code:  # it was killed, or failed, as on a machine that is too busy to answer in time
            if len(runs) == _MOST_STARTS:
                raise SystemExit(f"the client ended with {runs[-1].code}, the {_MOST_STARTS}th time")
            console.print(f"ended with {runs[-1].code} at {runs[-1].progress:.1%}", highlight=False)
            was_killed = any(run.code == -signal.SIGKILL for run in runs)
            runs.append(Run(stack, words))
            runs[-1].watch(1 if was_killed else arguments.kill_at, console)
        took = time.perf_counter() - started
        cpu = {name: round(cpu_s(pid) - idle[name]) for name, pid in stack.pids.items()}
        tiled = score(read(results), objects, arguments.side)
        started = time.perf_counter()
        with stack.client() as client:
            whole = score(client.everything(LargeTiff(picture)), objects, arguments.side)
        whole["seconds"] = round(time.perf_counter() - started, 1)
    lines = [json.loads(line) for line in journal.read_text().splitlines()[1:]]
    repeated = sum(times - 1 for times in Counter(json.dumps(line["tile"]) for line in lines).values())
    tiled |= {
        "seconds": round(took, 1),
        "seconds_until_killed": round(killed, 1),
        "ended": [run.code for run in runs[:-1]],
        "cpu_s": {**cpu, "client": round(sum(run.cpu_s for run in runs))},
        "peak_mib": max(run.peak_bytes for run in runs) >> 20,
        "tiles": len(lines),
        "clicks": sum(line["clicks"] for line in lines),
        "repeated_tiles": repeated,
    }
    return {"side": arguments.side, "tile_px": arguments.tile_px, "tiles": tiled, "whole": whole}


def table(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    tiled, whole = figures["tiles"], figures["whole"]
    lines = ["| objects | tiles | the picture as a whole |", "|---|---|---|"]
    for name, (found, there) in tiled["by_size"].items():
        if there:
            lines.append(f"| {name}: {there} | {found} found | {whole['by_size'][name][0]} found |")
    lines += [
        f"| all: {tiled['objects']} | {tiled['found']} found | {whole['found']} found |",
        f"| second masks of an object | {tiled['duplicates']} | {whole['duplicates']} |",
        f"| masks in all | {tiled['masks']} | {whole['masks']} |",
        f"| masks of a stability of {STABLE} and more; objects among them | {tiled['stable']}; "
        f"{tiled['stable_found']} | {whole['stable']}; {whole['stable_found']} |",
        f"| seconds | {tiled['seconds']:.0f} | {whole['seconds']:.0f} |",
    ]
    cpu = ", ".join(f"{name} {seconds} s" for name, seconds in tiled["cpu_s"].items())
    failed = sum(code != -signal.SIGKILL for code in tiled["ended"])
    more = (
        f"Tiles from {figures['tile_px']} px: {tiled['clicks']} clicks in {tiled['tiles']} tiles; the others are flat. "
        f"The client took {tiled['peak_mib']} MiB at most. It was started {len(tiled['ended']) + 1} times: killed "
        f"after {tiled['seconds_until_killed']:.0f} s, and failed {failed} times. {tiled['repeated_tiles']} tiles were "
        f"clicked twice. {tiled['alike']} pairs of masks have an IoU of {FOUND}. "
        f"Processor time: {cpu}."
    )
    return "\n".join([*lines, "", more])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--objects", type=int, default=500)
    parser.add_argument("--seed", type=int, default=24, help="of the places of objects")
    parser.add_argument("--tile-px", type=int, default=256)
    parser.add_argument("--points-per-side", type=int, default=24)
    parser.add_argument("--kill-at", type=float, default=0.3, help="share of the clicks; 1 for not at all")
    parser.add_argument("--go-on", action="store_true", help="go on from the journal of a run that ended early")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "large.md")
    for name in ("--find", "--journal", "--results"):
        parser.add_argument(name, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.find is not None:
        find(arguments.find, arguments)
        return
    console = Console(stderr=True)
    figures = measure(arguments, console)
    about = machine()
    command = (
        f"python -m bench.large --side {arguments.side} --objects {arguments.objects} --seed {arguments.seed} "
        f"--tile-px {arguments.tile_px} --points-per-side {arguments.points_per_side}"
    )
    text = (
        f"Generated by `{command}` on {about['date']}; do not edit. {about['cpu']}, {os.cpu_count()} cores. The demo "
        f"model; found is an IoU of at least {FOUND}.\n\n{table(figures)}\n"
    )
    arguments.out.write_text(text)
    arguments.out.with_suffix(".json").write_text(json.dumps({**about, **figures}, indent=1) + "\n")
    console.print(text, highlight=False, markup=False)


if __name__ == "__main__":
    main()
