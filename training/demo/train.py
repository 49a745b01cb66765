"""Trains the demo model through its curriculum.

    python -m training.demo.train --data demo-data.zip --out runs/demo

The same command goes on where it was interrupted: checkpoint.pt in the folder holds everything. demo.safetensors there
is the exponential moving average of the weights, written with each checkpoint; at the end of a stage it is kept under
the stage's name, too (large.safetensors), for training.demo.average. held-out.jpg, with every fourth checkpoint, shows
how far they are: pictures that training never sees, with an object found by a click, by a box, after three corrections,
and without a prompt.

On a CPU, processes of one thread each update shared weights in turn (--processes, one for each core that is free). On
CUDA one process trains, and --workers compose its pictures (as many as there are cores).

Where there is little time, --scale 0.5 halves the updates of all stages; with a GPU, give --scale 5 or more. Training
can begin at a later stage: --start full --weights demo.safetensors
"""

import argparse
import ctypes
import shutil
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import multiprocessing

from training.demo import pictures
from training.demo.asker import Asker
from training.demo.batches import Batches
from training.demo.curriculum import STAGES, Stage
from training.demo.export import export
from training.demo.heldout import Case, cases
from training.demo.loop import Report, precision, printer, run
from training.demo.network import Network
from training.demo.objective import objective
from training.demo.pack import Pack
from training.demo.state import State

WEIGHTS = "demo.safetensors"


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="file made by training.demo.pack")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; goes on if it holds a checkpoint")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--processes", type=int, default=2, help="trainers on a CPU (default 2)")
    parser.add_argument("--workers", type=int, default=8, help="processes that compose pictures for CUDA (default 8)")
    parser.add_argument("--start", choices=[stage.name for stage in STAGES], default=STAGES[0].name, help="first stage")
    parser.add_argument("--weights", type=Path, help=".safetensors to begin from (default: random weights)")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the updates of each stage (default 1)")
    parser.add_argument("--save-every", type=float, default=180, metavar="S", help="seconds between checkpoints")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(sys.argv[1:] if arguments is None else arguments)
    device = torch.device(options.device)
    if device.type == "cpu":
        _keep_memory()
        _one_thread()
    options.out.mkdir(parents=True, exist_ok=True)
    checkpoint = options.out / "checkpoint.pt"
    state = State.load(checkpoint, device) if checkpoint.is_file() else _begin(options, device)
    held_out = pictures.some_of(list(cases(Pack.load(options.data, held_out=True), composed=2, objects=1)), each=2)
    pack = Pack.load(options.data, held_out=False)
    stages = [replace(stage, updates=max(1, round(stage.updates * options.scale))) for stage in STAGES]
    first = next(index for index, stage in enumerate(stages) if stage.name == state.stage)
    for stage in stages[first:]:
        if state.stage != stage.name:
            state.next_stage(stage.name)
        train(state, stage, Batches(pack, stage, options.seed), options, held_out)
        save(state, options.out)
        shutil.copyfile(options.out / WEIGHTS, options.out / f"{stage.name}.safetensors")
    if held_out:
        pictures.save(Asker(options.out / WEIGHTS), held_out, options.out / "held-out.jpg")


def train(state: State, stage: Stage, batches: Batches, options: argparse.Namespace, held_out: list[Case]) -> None:
    """The rest of one stage."""
    print(f"{stage.name}: {stage.size} px, {state.updates} of {stage.updates} updates done", flush=True)
    report = reporter(stage, options.out, options.save_every, held_out)
    device = state.weights.device
    network = Network(stage.size).to(device).train()
    common = (state, network, partial(objective, corrections=stage.corrections), batches)
    if device.type != "cpu":
        run(*common, nullcontext(), options.workers, stage.updates, precision(device), report)
        return
    state.share()
    context = multiprocessing.get_context("fork")
    lock = context.Lock()
    arguments = (*common, lock, 0, stage.updates, precision(device))
    others = [context.Process(target=_other, args=arguments, daemon=True) for _ in range(options.processes - 1)]
    for process in others:
        process.start()
    run(*arguments, report)
    for process in others:
        process.join()
        if process.exitcode:
            raise SystemExit(f"error: a trainer ended with status {process.exitcode}; its message is above")


def _other(*arguments: Any) -> None:
    _one_thread()
    run(*arguments)


def reporter(stage: Stage, out: Path, save_every: float, held_out: list[Case]) -> Report:
    """Prints figures twice a minute, saves now and then, and draws held-out pictures with every fourth checkpoint."""
    tell, saved, saves = printer(stage), time.monotonic(), 0

    def report(state: State, figures: dict[str, float]) -> None:
        nonlocal saved, saves
        tell(state, figures)
        if time.monotonic() - saved > save_every:
            saves += 1
            save(state, out)
            if saves % 4 == 0 and held_out:
                pictures.save(Asker(out / WEIGHTS), held_out, out / "held-out.jpg")
            saved = time.monotonic()

    return report


def save(state: State, out: Path) -> None:
    """Writes the checkpoint and the averaged weights as they would be shipped."""
    state.save(out / "checkpoint.pt")
    export(state.network(STAGES[-1].size), out / WEIGHTS)


def _begin(options: argparse.Namespace, device: torch.device) -> State:
    size = next(stage.size for stage in STAGES if stage.name == options.start)
    network = Network.fresh(size, options.seed)
    if options.weights:
        network.load(options.weights)
    return State.of(network, options.start, device)


def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def _keep_memory() -> None:
    """Tells glibc's allocator to keep freed memory: fetching pages anew costs a fifth of each update."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    for parameter, value in ((-4, 0), (-1, 2_000_000_000), (-2, 1 << 28), (-8, 1)):  # mmap, trim, top pad, arenas
        mallopt(parameter, value)


if __name__ == "__main__":
    main()
