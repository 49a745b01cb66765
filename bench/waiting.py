"""What the encoder's queue costs."""

import asyncio
import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from maskwire_core.config import EncoderSettings
from maskwire_encoder import device
from maskwire_encoder.images import read_image
from maskwire_encoder.model import Model
from maskwire_encoder.pipeline import Pipeline, Pixels
from maskwire_encoder.waiting import Demand


async def queue_cost(model: Model, settings: EncoderSettings, files: Sequence[bytes]) -> dict[str, float]:
    """64 callers with an image each against a bare loop over the same images, from model inputs to embeddings; and what
    the batcher adds to an idle encoder's answer.
    """
    pipeline = Pipeline(settings, [model])
    loop = asyncio.get_running_loop()
    ratios, added = [], []
    share = max(1, len(files) // 5)
    for turn in range(5):  # in turns, since the machine may be busy
        inputs = [model.prepare(read_image(data, 10**9)) for data in files[turn * share : (turn + 1) * share]]
        started = time.perf_counter()
        expected = [(await asyncio.to_thread(device.encode, model, [pixels]))[0] for pixels in inputs]
        bare = time.perf_counter() - started
        work = iter(range(len(inputs)))
        answers: dict[int, Any] = {}

        async def caller(number: int, work: Any = work, inputs: Any = inputs, answers: Any = answers) -> None:
            for index in work:
                answers[index], _ = await pipeline.encode(model, Pixels(64, 64, inputs[index]), Demand(number))

        started = time.perf_counter()
        await asyncio.gather(*(caller(number) for number in range(64)))
        ratios.append((time.perf_counter() - started) / bare)
        for index, alone in enumerate(expected):  # everybody got their own image's
            for name, values in alone.items():
                np.testing.assert_allclose(answers[index][name], values, atol=1e-4)
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
        await loop.run_in_executor(None, device.encode, instant, [pixels])
        direct = time.perf_counter() - started
        started = time.perf_counter()
        await idle.encode(instant, Pixels(64, 64, pixels), Demand(0))
        added.append(time.perf_counter() - started - direct)
    return {"loop_ratio": statistics.median(ratios), "idle_added_ms_p50": statistics.median(added) * 1e3}
