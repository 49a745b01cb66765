"""Measures the cost of the encoder's queue."""

import asyncio
import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from maskwire_core.config import EncoderSettings
from maskwire_core.scheduling.fair_queue import Requester
from maskwire_core.scheduling.scheduler import Demand
from maskwire_encoder.backends import device
from maskwire_encoder.backends.model import Model
from maskwire_encoder.image_input.reading import read_image
from maskwire_encoder.pipeline import Pipeline
from maskwire_encoder.reading_jobs import Pixels

_PARTS = 3


async def queue_cost(model: Model, settings: EncoderSettings, files: Sequence[bytes]) -> dict[str, float]:
    """Compares 64 concurrent callers with a bare loop over the same images, from model inputs to embeddings.

    Returns:
        `loop_ratio`, the time through the queue divided by that of the loop, and `idle_added_ms_p50`, the milliseconds
        that the queue adds to the reply of an idle encoder. Both are medians.
    """
    pipeline = Pipeline(settings, [model])
    loop = asyncio.get_running_loop()
    ratios, added = [], []
    share = max(1, len(files) // _PARTS)
    for turn in range(2 * _PARTS):  # each part in both orders, since the machine may be busy
        first = turn % _PARTS * share
        inputs = [model.prepare(read_image(data, 10**9).pixels) for data in files[first : first + share]]

        async def bare(inputs: Any = inputs) -> list[Any]:
            return [(await asyncio.to_thread(device.encode_batch, model, [pixels]))[0] for pixels in inputs]

        async def queued(inputs: Any = inputs) -> list[Any]:
            work, answers = iter(range(len(inputs))), dict[int, Any]()

            async def caller(number: int) -> None:
                for index in work:
                    answers[index], _ = await pipeline.encode(
                        model, Pixels(64, 64, inputs[index]), Demand(Requester("bench", number))
                    )

            await asyncio.gather(*(caller(number) for number in range(64)))
            return [answers[index] for index in range(len(inputs))]

        took_s, results = {}, {}
        for way in (bare, queued) if turn % 2 else (queued, bare):
            started = time.perf_counter()
            results[way] = await way()
            took_s[way] = time.perf_counter() - started
        ratios.append(took_s[queued] / took_s[bare])
        for expected, answer in zip(results[bare], results[queued], strict=True):  # each for its own image
            for name, values in expected.items():
                np.testing.assert_allclose(answer[name], values, atol=1e-4)
    pixels = inputs[0]

    class Instant(Model):
        def __init__(self) -> None:
            self.device, self.largest = torch.device("cpu"), 1

        def encode(self, images: Any) -> list[Any]:
            return [{} for _ in images]

    instant = Instant()
    idle = Pipeline(settings, [instant])
    for _ in range(300):
        started = time.perf_counter()
        await loop.run_in_executor(None, device.encode_batch, instant, [pixels])
        direct = time.perf_counter() - started
        started = time.perf_counter()
        await idle.encode(instant, Pixels(64, 64, pixels), Demand(Requester("bench", 0)))
        added.append(time.perf_counter() - started - direct)
    return {"loop_ratio": statistics.median(ratios), "idle_added_ms_p50": statistics.median(added) * 1e3}
