"""Image files from their first byte until they are decoded: small ones in memory, large ones on disk.

Room for the whole file is taken before its first byte is kept, so that no two files wait for each other's room half
received, and what is kept never exceeds what there is.
"""

import asyncio
import contextlib
import hashlib
import logging
import mmap
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from maskwire_core.call_context import current
from maskwire_core.config import MIB, EncoderSettings
from maskwire_core.errors import Unavailable
from maskwire_core.runtime.thread_priority import give_way
from maskwire_core.scheduling.byte_budget import ByteBudget

log = logging.getLogger(__name__)

_WRITERS = 2
_BLOCK = MIB  # what is gathered in memory before it is written to disk
_ON_THE_WAY = 2 * _BLOCK  # memory of a file on disk: what is gathered, and what is being written


class ImageFile:
    """An image file of which more and more comes, kept until all who hold it have released it.

    Args:
        size_bytes: Size of the whole file.
        writer: Writes to disk.
        on_disk: Where it is kept; None for memory.
        freed: Called when nobody holds the file any more.

    Attributes:
        size_bytes: As given.
        received: Bytes that have come.
    """

    def __init__(
        self,
        size_bytes: int,
        writer: ThreadPoolExecutor | None = None,
        on_disk: IO[bytes] | None = None,
        freed: Callable[[], None] = lambda: None,
    ) -> None:
        self.size_bytes = size_bytes
        self.received = 0
        self._gathered = bytearray()  # the whole file, or what is not written to disk yet
        self._written = hashlib.sha256()
        self._on_disk = on_disk
        self._writer = writer
        self._freed = freed
        self._holders = 1

    @classmethod
    def of(cls, data: bytes) -> "ImageFile":
        """A whole file in memory."""
        file = cls(len(data))
        file._gathered += data
        file.received = len(data)
        return file

    async def add(self, chunk: bytes) -> None:
        """Appends what has come.

        Raises:
            Unavailable: SPOOL_FAILED: the disk does not take it.
        """
        self.received += len(chunk)
        if self._on_disk is None:
            self._gathered += chunk
            return
        if len(self._gathered) + len(chunk) < _BLOCK and self.received < self.size_bytes:
            self._gathered += chunk
            return
        gathered, self._gathered = self._gathered, bytearray()
        try:
            await asyncio.get_running_loop().run_in_executor(self._writer, self._write, gathered, chunk)
        except OSError as error:
            raise _failed(error) from error

    def _write(self, *parts: bytes | bytearray) -> None:
        assert self._on_disk is not None
        for part in parts:
            self._on_disk.write(part)
            self._written.update(part)

    def read(self) -> bytes:
        """Returns what has come. Blocks."""
        if self._on_disk is None:
            return bytes(self._gathered)
        self._on_disk.seek(0)
        return self._on_disk.read()

    @contextlib.contextmanager
    def mapped(self) -> Iterator[bytearray | mmap.mmap]:
        """Gives what has come without reading all of it into memory."""
        if self._on_disk is None:
            yield self._gathered
            return
        self._on_disk.flush()
        with mmap.mmap(self._on_disk.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            yield mapped

    def sha256(self) -> bytes:
        """SHA-256 of what has come. Blocks."""
        if self._on_disk is None:
            return hashlib.sha256(self._gathered).digest()
        return self._written.digest()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keeps the file at least until the body ends."""
        assert self._holders
        self._holders += 1
        try:
            yield
        finally:
            self.release()

    def release(self) -> None:
        """Ends one hold on the file, the first of which is its maker's."""
        self._holders -= 1
        if not self._holders:
            self._gathered = bytearray()
            if self._on_disk is not None:
                assert self._writer is not None
                self._writer.submit(self._on_disk.close)  # which may wait for the disk
            self._freed()


class Spool:
    """Room for the files that arrive and wait.

    Args:
        settings: What is kept where, and how much of it.

    Attributes:
        memory: Bytes of files in memory.
        disk: Bytes of files on disk.
    """

    def __init__(self, settings: EncoderSettings) -> None:
        self._folder = _checked_folder(settings.spool)
        self._above = settings.spool_above_bytes
        self.memory = ByteBudget(settings.upload_bytes)
        self.disk = ByteBudget(settings.spool_bytes)
        self._writer = ThreadPoolExecutor(_WRITERS, "spool", initializer=give_way)

    def open(self, size_bytes: int) -> ImageFile:
        """Takes room for a file of the current caller's.

        Raises:
            ResourceExhausted: TOO_MUCH_IN_PROGRESS: there is not enough.
            Unavailable: SPOOL_FAILED: the disk takes no file.
        """
        tenant = current().caller.tenant
        if size_bytes <= self._above or self._folder is None:
            memory = self.memory.account(tenant)
            memory.take(size_bytes)
            return ImageFile(size_bytes, freed=memory.close)
        with contextlib.ExitStack() as taken:
            for budget, nbytes in ((self.memory, _ON_THE_WAY), (self.disk, size_bytes)):
                taken.enter_context(budget.account(tenant)).take(nbytes)
            try:
                on_disk = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - which the ImageFile closes
            except OSError as error:
                raise _failed(error) from error
            return ImageFile(size_bytes, self._writer, on_disk, taken.pop_all().close)


def _failed(error: OSError) -> Unavailable:
    log.error("cannot keep an upload on disk: %s", error)
    return Unavailable("SPOOL_FAILED", "the encoder's disk does not take the file; its log tells why", retry_after_s=5)


def _checked_folder(folder: Path | None) -> Path | None:
    """Returns a folder in which files can be made: the system's if it is None. Returns None if there is none."""
    try:
        chosen = folder or Path(tempfile.gettempdir())
        tempfile.TemporaryFile(dir=chosen).close()
        return chosen
    except OSError as error:
        log.warning("uploads are kept in memory alone, since none can be kept on disk: %s; set --spool", error)
        return None
