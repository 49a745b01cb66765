"""The stages that an image passes through: reading, encoding and storing, each on threads of its own."""

import asyncio
import os
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

from maskwire.pictures import Picture, PictureError, Stretch
from maskwire.pictures.cost import estimate
from maskwire.pictures.limits import Limits as PictureLimits
from maskwire_core.config import MIB, EncoderSettings
from maskwire_core.errors import ResourceExhausted, Unavailable
from maskwire_core.masks.geometry import Rectangle
from maskwire_core.runtime.thread_priority import give_way
from maskwire_core.scheduling.byte_budget import Account, ByteBudget
from maskwire_core.scheduling.executors import BatchScheduler
from maskwire_core.scheduling.fair_queue import Limits
from maskwire_core.scheduling.scheduler import Demand, Served, Tally
from maskwire_core.telemetry.metrics import BATCH_SIZE
from torch import Tensor

from maskwire_encoder.backends import device
from maskwire_encoder.backends.device import DeviceLost, Tensors
from maskwire_encoder.backends.model import Model
from maskwire_encoder.image_input.reader_pool import Abandoned, Handle, ReaderPool
from maskwire_encoder.image_input.reader_process import Job
from maskwire_encoder.image_input.reading import refused, too_large
from maskwire_encoder.reading_jobs import Cut, File, Pixels, cut_part, prepare_pixels
from maskwire_encoder.spool import ImageFile

T = TypeVar("T")

# A file that may take more processor time or memory counts as large, such as a JPEG of 30 megapixels.
_LARGE_S, _LARGE_BYTES = 12, 512 * MIB
_LOOK_S = 1  # how often a file that waits for memory looks whether it is still wanted


class Pipeline:
    """Reads, encodes and stores images. They wait in a fair queue before they are read; no stage runs far ahead.

    Args:
        settings: Sizes of the stages and limits of the queue.
        models: The models that encode; all on one device.

    Attributes:
        readers: Reads image files; images wait here.
        large_readers: Reads those that may take long, so that others do not wait for them.
        model: Encodes images in batches.
        lost: Set when the device does not work any more.
        device: The models' device.
        models: As given.
    """

    def __init__(self, settings: EncoderSettings, models: Sequence[Model]) -> None:
        self._max_pixels = settings.max_image_pixels
        most = max(model.largest for model in models)
        cuda = models[0].device.type == "cuda"
        at_once = 2 if cuda else 1  # on CUDA, one batch is transferred while another is computed
        readers = settings.readers or (os.cpu_count() or 2 if cuda else 2)
        self._ahead = max(readers, 2 * most)
        self._writing = 0
        self._most_writing = settings.writers + 2 * most
        large_readers = settings.large_readers(readers)
        self.pool = ReaderPool(readers + large_readers, max(3 * settings.max_image_pixels, settings.max_image_bytes))
        self._most_bytes = settings.decode_bytes
        self._memory = ByteBudget(min(2, large_readers) * settings.decode_bytes)
        self._reading = ThreadPoolExecutor(readers + large_readers, "image reader", initializer=give_way)
        self._encoding = ThreadPoolExecutor(at_once, "model", initializer=give_way)
        self._storing = ThreadPoolExecutor(settings.writers, "store writer", initializer=give_way)
        self.model: BatchScheduler[Tensor, Tensors] = BatchScheduler(
            "model",
            self.encode_batch,
            limits=Limits(),  # the readers do not run far ahead
            at_once=at_once,
            most=lambda model: cast(Model, model).largest,
            max_wait_s=settings.max_wait_ms / 1e3,
        )
        waiting = Limits(settings.queue_limit, max(settings.queue_bytes, settings.max_image_bytes))
        self.readers: BatchScheduler[File | Cut, Pixels] = BatchScheduler(
            "encoder",
            self._read,
            limits=waiting,
            at_once=readers,
            may_start=lambda: self._has_room(self.readers),
            downstream=self.model,
        )
        self.large_readers: BatchScheduler[File | Cut, Pixels] = BatchScheduler(
            "encoder",
            self._read,
            limits=waiting,
            at_once=large_readers,
            may_start=lambda: self._has_room(self.large_readers),
            downstream=self.model,
        )
        self.lost = asyncio.Event()
        self.device = models[0].device
        self.models = models

    @property
    def waiting(self) -> int:
        """Number of images that the model has not begun to encode."""
        return sum(lane.waiting + lane.running for lane in self._lanes) + self.model.waiting

    @property
    def waiting_bulk(self) -> int:
        """Number of these images that are waiting with PRIORITY_BULK."""
        return sum(lane.waiting_bulk for lane in self._lanes) + self.model.waiting_bulk

    @property
    def oldest_wait_s(self) -> float:
        """How long the oldest image has waited, in seconds."""
        return max(self.model.oldest_wait_s, *(lane.oldest_wait_s for lane in self._lanes))

    @property
    def left(self) -> Tally:
        """How many images left the queues without being encoded, and how long all have waited."""
        tallies = [self.model.tally, *(lane.tally for lane in self._lanes)]
        return Tally(
            refused=sum(tally.refused for tally in tallies),
            expired=sum(tally.expired for tally in tallies),
            cancelled=sum(tally.cancelled for tally in tallies),
            waited_s=sum(tally.waited_s for tally in tallies),
        )

    @property
    def backlog_s(self) -> float:
        """How long all waiting images will take at the present pace, in seconds."""
        return self.waiting * self.model.pace_s

    async def read(
        self,
        model: Model,
        content: ImageFile,
        stretch: Stretch,
        is_frame: bool,
        demand: Demand,
        part: Rectangle | None = None,
        keep: Callable[[Picture], None] | None = None,
    ) -> Served[Pixels]:
        """Decodes an image file in a process of its own and prepares it for a model, when its turn comes.

        If this is cancelled, the decoding ends at once.

        Args:
            model: The model.
            content: The file, which is complete.
            stretch: How samples of more than 8 bits are mapped to 8 bits.
            is_frame: Whether it is resized as a frame of a video.
            demand: Who wants it, and how soon.
            part: The part of the picture that is wanted; None for all of it.
            keep: Is given the whole picture, decoded, whose pixels are gone when it returns.

        Raises:
            InvalidArgument: The file cannot be decoded, or not within its limits.
        """
        try:
            with content.mapped() as data:
                cost = estimate(data, PictureLimits(self._max_pixels))
        except PictureError as error:
            raise refused(error) from error
        if cost.bytes > self._most_bytes:
            raise refused(too_large(cost.bytes, self._most_bytes))
        lane = self.large_readers if cost.cpu_s > _LARGE_S or cost.bytes > _LARGE_BYTES else self.readers
        handle = Handle()
        lane.admit(demand)
        file = File(content, stretch, is_frame, part, cost, demand.requester.tenant, handle, keep)
        try:
            return await lane.submit(file, demand, kind=model, nbytes=content.size_bytes)
        except asyncio.CancelledError:
            handle.leave()
            raise

    async def cut(self, model: Model, cut: Cut, demand: Demand) -> Served[Pixels]:
        """Prepares a part of a decoded picture for a model, when its turn comes. Raises `Forgotten`."""
        self.readers.admit(demand)
        return await self.readers.submit(cut, demand, kind=model)

    async def encode(self, model: Model, pixels: Pixels, demand: Demand) -> Served[Tensors]:
        """Encodes an image, in a batch with others, when its turn comes. See `device.encode_batch` for errors."""
        try:
            return await self.model.submit(pixels.prepared, demand, kind=model)
        finally:
            self._poke()

    async def store(self, write: Callable[[], T]) -> T:
        """Runs a write to the store on a thread, and returns its result."""
        self._writing += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._storing, write)
        finally:
            self._writing -= 1
            self._poke()

    async def start(self) -> None:
        """Waits until the processes that read images are ready. Raises `RuntimeError` if one cannot be started."""
        await asyncio.get_running_loop().run_in_executor(self._reading, self.pool.wait_until_ready)

    async def encode_batch(self, model: Hashable, prepared: Sequence[Tensor]) -> list[Tensors | Exception]:
        """Encodes images at once, on a thread of the model's. Raises `Unavailable` if the device is lost."""
        self._poke()  # the model's queue has room again
        BATCH_SIZE.observe(len(prepared))
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._encoding, device.encode_batch, cast(Model, model), prepared)
        except DeviceLost as error:
            self.lost.set()
            raise Unavailable("DEVICE_LOST", f"{error}; this encoder ends, try again", retry_after_s=0.5) from error

    async def verify(self, model: Model, tensors: Tensors) -> None:
        """Runs `Model.verify` on a thread of the model's."""
        await asyncio.get_running_loop().run_in_executor(self._encoding, model.verify, tensors)

    def hurry(self, demand: Demand) -> None:
        """Applies a demand that was joined by another to the image that waits for it."""
        for queue in (*self._lanes, self.model):
            queue.hurry(demand)

    def close(self) -> None:
        """Ends the processes that read images."""
        self.pool.close()

    @property
    def _lanes(self) -> tuple[BatchScheduler[File | Cut, Pixels], BatchScheduler[File | Cut, Pixels]]:
        return self.readers, self.large_readers

    def _poke(self) -> None:
        for lane in self._lanes:
            lane.poke()

    def _has_room(self, lane: BatchScheduler[File | Cut, Pixels]) -> bool:
        return lane.running + self.model.waiting < self._ahead and self._writing < self._most_writing

    async def _read(self, model: Hashable, files: Sequence[File | Cut]) -> list[Pixels]:
        (file,) = files
        loop, encoding = asyncio.get_running_loop(), cast(Model, model)
        if isinstance(file, Cut):
            return [await loop.run_in_executor(self._reading, cut_part, encoding, file)]

        def use(picture: Picture, warnings: Sequence[str]) -> Pixels:
            if file.keep is not None:
                file.keep(picture)
            return prepare_pixels(encoding, picture, file.part, file.is_frame, tuple(warnings))

        def read() -> Pixels:
            job = Job(file.content.read(), file.stretch, self._max_pixels, file.cost)
            try:
                return self.pool.read(job, file.handle, use)
            except PictureError as error:
                raise refused(error) from error

        with file.content.held(), self._memory.account(file.tenant) as account:  # by the thread, which goes on
            await _take_memory(account, file)
            return [await loop.run_in_executor(self._reading, read)]


async def _take_memory(account: Account, file: File) -> None:
    """Waits until a large file may be decoded.

    Raises:
        Abandoned: Nobody wants the file any more.
    """
    while file.cost.bytes > _LARGE_BYTES:
        try:
            await account.wait(file.cost.bytes, _LOOK_S)
            return
        except ResourceExhausted as error:
            if file.handle.left:
                raise Abandoned from error
