"""The training loop of one process; several may run it on one state."""

import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from training.demo.batches import Batch, Batches
from training.demo.curriculum import Stage
from training.demo.network import Network
from training.demo.state import State

_WARM_UP, _LAST_RATE = 100, 0.02

Objective = Callable[[Network, Batch], tuple[Tensor, dict[str, Tensor]]]
"""Gives the loss of a batch, and what is told of it by name."""

Report = Callable[[State, dict[str, float]], None]
"""Is told the state and the figures after an update."""


def precision(device: torch.device) -> torch.dtype:
    """bf16, or fp32 on a CPU without instructions for bf16, where it takes half the time."""
    fast = device.type != "cpu" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32


def rate(stage: Stage, updates: int) -> float:
    """The learning rate: a short warm-up, then half a cosine down to a fiftieth."""
    fall = 0.5 * (1 + math.cos(math.pi * min(1, updates / stage.updates)))
    return stage.rate * min(1, (updates + 1) / _WARM_UP) * (_LAST_RATE + (1 - _LAST_RATE) * fall)


def run(
    state: State,
    network: Network,
    objective: Objective,
    batches: Batches,
    lock: AbstractContextManager[object],
    workers: int,
    limit: int,
    dtype: torch.dtype,
    report: Report | None = None,
) -> None:
    """Updates the state until its stage has `limit` updates.

    Each update starts from the shared weights as they are then, in a copy; its gradient (clipped to length 1) is
    applied whenever it is ready, also if another process was faster in between. On one process the result depends on
    the seed and `dtype` alone, wherever training was interrupted.

    Args:
        state: What is trained, shared between processes.
        network: Runs, on the state's device. Its parameters that need a gradient become the copy of the weights.
        objective: What is made small.
        batches: The data of the stage.
        lock: Held while the state changes.
        workers: Processes that compose batches ahead; with none, each is composed when it is needed. More than none
            only where a single process trains.
        limit: Updates of the stage at which to stop.
        dtype: Of the copy.
        report: Called after each update with means of the latest figures.
    """
    device = state.weights.device
    copy = torch.zeros(len(state.weights), dtype=dtype, device=device)
    gradients = torch.zeros_like(copy)
    state.attach(network, copy, gradients)
    figures: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=100))
    for number, batch in _taken(state, batches, lock, workers, limit):
        started = time.monotonic()
        torch.manual_seed(batches.seed * 1_000_003 + number)
        with lock:
            copy.copy_(state.weights)
        gradients.zero_()
        loss, told = objective(network, batch.to(device))
        loss.backward()
        gradient = gradients.float()
        length = float(gradient.norm())
        gradient.mul_(min(1, 1 / length) if math.isfinite(length) else 0).nan_to_num_()
        with lock:
            state.update(gradient, rate(batches.stage, state.updates))
        if report is not None:
            for name, values in (told | {"loss": loss.detach()[None]}).items():
                if len(values):
                    figures[name].append(float(values.mean()))
            figures["seconds"].append(time.monotonic() - started)
            report(state, {name: sum(values) / len(values) for name, values in figures.items()})


def printer(stage: Stage) -> Report:
    """Prints figures twice a minute, and those of the last update."""
    printed = time.monotonic()

    def report(state: State, figures: dict[str, float]) -> None:
        nonlocal printed
        if time.monotonic() - printed > 30 or state.updates == stage.updates:
            printed = time.monotonic()
            told = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
            print(f"{time.strftime('%H:%M:%S')} {stage.name} {state.updates}/{stage.updates}: {told}", flush=True)

    return report


def _taken(
    state: State, batches: Batches, lock: AbstractContextManager[object], workers: int, limit: int
) -> Iterator[tuple[int, Batch]]:
    """The batches that this process works on, with their numbers."""
    ahead = iter(())
    if workers:
        numbers = range(int(state.counters[1]), limit)
        loader = DataLoader(batches, None, sampler=numbers, num_workers=workers, prefetch_factor=4, pin_memory=True)
        ahead = iter(loader)
    while True:
        with lock:
            number = state.take()
        if number >= limit:
            return
        yield number, next(ahead) if workers else batches[number]
