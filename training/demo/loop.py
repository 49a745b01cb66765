"""The training loop of one process; several may run it on one state."""

import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import torch
from torch.utils.data import DataLoader

from training.demo.batches import Batch, Batches
from training.demo.curriculum import Stage
from training.demo.network import Network
from training.demo.objective import objective
from training.demo.state import State

_WARM_UP, _LAST_RATE = 100, 0.02


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
    stage: Stage,
    batches: Batches,
    lock: AbstractContextManager[object],
    device: torch.device,
    workers: int,
    limit: int,
    report: Callable[[State, dict[str, float]], None] | None = None,
) -> None:
    """Updates the state until its stage has `limit` updates.

    Each update starts from the shared weights as they are then, in a copy of `precision`; its gradient (clipped to
    length 1) is applied whenever it is ready, also if another process was faster in between. On one process the result
    depends on the seed and the precision alone, wherever training was interrupted.

    Args:
        state: What is trained, shared between processes.
        stage: Where training is in the curriculum.
        batches: Its data.
        lock: Held while the state changes.
        device: Where the state is and the network runs.
        workers: Processes that compose batches ahead; with none, each is composed when it is needed. More than none
            only where a single process trains.
        limit: Updates of the stage at which to stop.
        report: Called after each update with means of the latest figures.
    """
    network = Network(stage.size).to(device).train()
    copy = torch.zeros(len(state.weights), dtype=precision(device), device=device)
    gradients = torch.zeros_like(copy)
    state.attach(network, copy, gradients)
    figures: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=100))
    for number, batch in _taken(state, batches, lock, workers, limit):
        started = time.monotonic()
        torch.manual_seed(batches.seed * 1_000_003 + number)
        with lock:
            copy.copy_(state.weights)
        gradients.zero_()
        loss, told = objective(network, batch.to(device), stage.corrections)
        loss.backward()
        gradient = gradients.float()
        length = float(gradient.norm())
        gradient.mul_(min(1, 1 / length) if math.isfinite(length) else 0).nan_to_num_()
        with lock:
            state.update(gradient, rate(stage, state.updates))
        if report is not None:
            for name, values in (told | {"loss": loss.detach()[None]}).items():
                if len(values):
                    figures[name].append(float(values.mean()))
            figures["seconds"].append(time.monotonic() - started)
            report(state, {name: sum(values) / len(values) for name, values in figures.items()})


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
