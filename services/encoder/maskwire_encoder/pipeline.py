"""The way of an image through this process: read, encoded, stored, each while others are in the other stages."""

import asyncio
import os
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np
from maskwire.pictures import Stretch
from maskwire_core.config import EncoderSettings
from maskwire_core.errors import ServiceError, Unavailable
from maskwire_core.models.registry import ModelError
from maskwire_core.runtime.thread_priority import give_way
from maskwire_core.telemetry.metrics import BATCH_SIZE
from numpy.typing import NDArray
from torch import Tensor

from maskwire_encoder.backends import device
from maskwire_encoder.backends.device import DeviceLost, Tensors
from maskwire_encoder.backends.model import Model
from maskwire_encoder.batcher import Batcher
from maskwire_encoder.image_input.reading import read_image
from maskwire_encoder.waiting import Demand

T = TypeVar("T")

_SELF_TEST_TOLERANCE = 0.02  # largest deviation, relative to a tensor's largest value


@dataclass(frozen=True)
class Pixels:
    """An image as its model takes it.

    Attributes:
        height: Of the image, in pixels.
        width: Likewise.
        prepared: What `Model.prepare` made of it.
        stretch: How its samples were mapped to 8 bits.
    """

    height: int
    width: int
    prepared: Tensor
    stretch: Stretch = "none"


@dataclass(frozen=True)
class File:
    """An image file that waits to be read.

    Attributes:
        data: Its bytes.
        stretch: How its samples are to be mapped to 8 bits.
    """

    data: bytes
    stretch: Stretch


class Pipeline:
    """Stages with threads of their own. Images wait before the first in a fair order; no stage runs far ahead.

    Args:
        settings: Sizes of the stages.
        models: What will encode; all on one device.
    """

    def __init__(self, settings: EncoderSettings, models: Sequence[Model]) -> None:
        self._max_pixels = settings.max_image_pixels
        most = max(model.largest for model in models)
        cuda = models[0].device.type == "cuda"
        at_once = 2 if cuda else 1  # on CUDA, a batch's transfers overlap with another's products
        self._at_once = at_once
        readers = settings.readers or (os.cpu_count() or 2 if cuda else 2)
        self._ahead = max(readers, 2 * most)
        self._writing = 0
        self._most_writing = settings.writers + 2 * most
        self._reading = ThreadPoolExecutor(readers, "image reader", initializer=give_way)
        self._encoding = ThreadPoolExecutor(at_once, "model", initializer=give_way)
        self._storing = ThreadPoolExecutor(settings.writers, "store writer", initializer=give_way)
        self.readers: Batcher[File, Pixels] = Batcher(
            "encoder",
            self._read,
            at_once=readers,
            limit=settings.queue_limit,
            may_start=self._has_room,
            beyond=self._on_the_way,
        )
        self.model: Batcher[Tensor, Tensors] = Batcher(
            "model",
            self._encode,
            most=lambda model: cast(Model, model).largest,
            at_once=at_once,
            max_wait_s=settings.max_wait_ms / 1e3,
            limit=settings.queue_limit + 2 * self._ahead,  # never reached: the readers do not run so far ahead
        )
        self.lost = asyncio.Event()
        """Set when the device does not work any more."""
        self.device = models[0].device
        self._models = models
        self._expected: dict[Model, Tensors] = {}
        self._done = -1

    @property
    def waiting(self) -> int:
        """Images that have not begun to be encoded."""
        return self.readers.waiting + self.readers.running + self.model.waiting

    @property
    def waiting_bulk(self) -> int:
        """Those of them that wait as bulk work."""
        return self.readers.waiting_bulk + self.model.waiting_bulk

    @property
    def backlog_s(self) -> float:
        """How long all that waits will take at the present rate, in seconds."""
        return self.waiting * self.model.item_s

    async def read(self, model: Model, file: File, demand: Demand) -> tuple[Pixels, float]:
        """Decodes an image file and prepares it for a model, when its turn comes. Also returns the milliseconds waited.

        Raises:
            InvalidArgument: It is no image.
            ResourceExhausted: QUEUE_FULL.
            DeadlineExceeded: The deadline passed before its turn came.
        """
        return await self.readers.submit(model, file, demand)

    async def encode(self, model: Model, pixels: Pixels, demand: Demand) -> tuple[Tensors, float]:
        """Encodes an image, in a batch with others. Also returns the milliseconds that it waited.

        Raises:
            ResourceExhausted: DEVICE_OUT_OF_MEMORY.
            Unavailable: The device is lost.
            DeadlineExceeded: The deadline passed before its turn came.
        """
        try:
            return await self.model.submit(model, pixels.prepared, demand)
        finally:
            self.readers.poke()

    async def store(self, write: Callable[[], T]) -> T:
        """Runs a write to the store, on a thread."""
        self._writing += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._storing, write)
        finally:
            self._writing -= 1
            self.readers.poke()

    async def self_test(self) -> None:
        """Encodes a synthetic image with each model and compares the result with the first one.

        It does nothing if images were encoded since the last self-test.

        Raises:
            Unavailable: The device is lost.
            ModelError: The first time: the model cannot encode, or what it gives is NaN or infinite.
            RuntimeError: The model does not give what it gave before.
        """
        done, self._done = self._done, self.model.tally.done
        if self.model.tally.done != done >= 0:
            return
        for model in self._models:
            picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
            if model not in self._expected:
                self._expected[model] = await self._first(model, picture)
                continue
            (outcome,) = await self._encode(model, [model.prepare(picture)])
            if isinstance(outcome, Exception):
                raise outcome
            for name, expected in self._expected[model].items():
                # Other batches sum in another order.
                if not np.allclose(outcome[name], expected, atol=_SELF_TEST_TOLERANCE * float(np.abs(expected).max())):
                    raise RuntimeError(f"{model.source.name} gives another {name} for the same picture than before")

    async def _first(self, model: Model, picture: NDArray[np.uint8]) -> Tensors:
        """Encodes a model's first picture, and checks what it gives."""
        try:
            (outcome,) = await self._encode(model, [model.prepare(picture)])
            if isinstance(outcome, Exception):
                raise outcome
            await asyncio.get_running_loop().run_in_executor(self._encoding, model.verify, outcome)
        except (ModelError, ServiceError):
            raise
        except (RuntimeError, ValueError) as error:  # sizes that no constructor has checked
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelError(
                f"{model.source.name} cannot encode a picture: {first}; the sizes in {model.source.config} do not go "
                "together"
            ) from error
        return outcome

    def hurry(self, demand: Demand) -> None:
        """To be called after a demand was joined by another."""
        self.readers.hurry(demand)
        self.model.hurry(demand)

    def _on_the_way(self) -> tuple[int, float]:
        done = self.model.tally
        each_s = done.busy_s / done.done / self._at_once if done.done else 0.0
        return self.readers.running + self.model.waiting + self.model.running, each_s

    def _has_room(self) -> bool:
        ahead = self.readers.running + self.model.waiting
        return ahead < self._ahead and self._writing < self._most_writing

    async def _read(self, model: Hashable, files: Sequence[File]) -> list[Pixels]:
        def read() -> Pixels:
            picture = read_image(files[0].data, self._max_pixels, files[0].stretch)
            height, width, _ = picture.pixels.shape
            return Pixels(height, width, cast(Model, model).prepare(picture.pixels), picture.stretch)

        return [await asyncio.get_running_loop().run_in_executor(self._reading, read)]

    async def _encode(self, model: Hashable, prepared: Sequence[Tensor]) -> list[Tensors | Exception]:
        self.readers.poke()  # there is room again
        BATCH_SIZE.observe(len(prepared))
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._encoding, device.encode, cast(Model, model), prepared)
        except DeviceLost as error:
            self.lost.set()
            raise Unavailable("DEVICE_LOST", f"{error}; this encoder ends, try again", retry_after_s=0.5) from error
