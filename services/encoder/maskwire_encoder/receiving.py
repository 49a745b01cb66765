"""Uploads whose files are being received: what comes is held against what was announced, and has to go on coming."""

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar

from maskwire_core.call_context import current
from maskwire_core.errors import DeadlineExceeded, InvalidArgument

from maskwire_encoder.spool import ImageFile, Spool
from maskwire_encoder.upload import Upload

T = TypeVar("T")

LEAST_BYTES_PER_S = 16 << 10
"""An upload that comes more slowly than this, on average, is ended."""
_UNTIL_FIRST_CHUNK = 10  # times the longest pause: nothing is kept before it, and clients send one file at a time


class Receiving:
    """An upload whose file is being received. Close it when the upload has ended.

    Args:
        upload: The upload.
        spool: Where the file is kept.
        longest_pause_s: Seconds without a byte after which the upload counts as stalled.

    Attributes:
        upload: As given.
        asked_at: `time.perf_counter()` when the caller was asked for the file.
        file: What has come; None before the first byte.
    """

    def __init__(self, upload: Upload, spool: Spool, longest_pause_s: float) -> None:
        self.upload = upload
        self.asked_at = self._began = self._last = time.perf_counter()
        self.file: ImageFile | None = None
        self._spool = spool
        self._longest_pause_s = longest_pause_s

    @property
    def missing(self) -> int:
        """Bytes of the file that have not come."""
        return self.upload.size_bytes - (0 if self.file is None else self.file.received)

    @property
    def left_s(self) -> float:
        """Seconds until the upload counts as stalled, if nothing comes."""
        if self.file is None:
            ends_at = self._last + _UNTIL_FIRST_CHUNK * self._longest_pause_s
        else:
            ends_at = min(self._last, self._began + self.file.received / LEAST_BYTES_PER_S) + self._longest_pause_s
        return ends_at - time.perf_counter()

    def check(self, nbytes: int) -> None:
        """Raises TOO_MANY_BYTES if more has come than was announced; the tenant pays for that as well."""
        surplus = nbytes - self.missing
        if surplus > 0:
            current().caller.owe(surplus)
            announced = self.upload.size_bytes
            raise too_many_bytes(f"more bytes came than the {announced} that the header announced as size_bytes")

    async def add(self, chunk: bytes) -> None:
        """Keeps the next part of the file.

        Raises:
            InvalidArgument: TOO_MANY_BYTES, as `check`.
            ResourceExhausted: There is no room for the file.
        """
        self.check(len(chunk))
        if not chunk:
            return
        if self.file is None:
            self.file = self._spool.open(self.upload.size_bytes)
            self._began = time.perf_counter()
        await self.file.add(chunk)
        self._last = time.perf_counter()

    async def wait(self, frame: Awaitable[T]) -> T:
        """Awaits the next frame of the upload. Raises `DeadlineExceeded` as soon as the upload counts as stalled."""
        try:
            async with asyncio.timeout(self.left_s):
                return await frame
        except TimeoutError as error:
            raise self.stalled() from error

    def stalled(self) -> DeadlineExceeded:
        """The error of an upload that does not go on."""
        return DeadlineExceeded(
            "UPLOAD_STALLED",
            f"{self.missing} bytes of the file are missing, and too few came lately; send it again without pauses",
            field="chunk",
        )

    def close(self) -> None:
        """Gives the file's room back, as soon as nobody else holds the file."""
        if self.file is not None:
            self.file.release()
            self.file = None


def too_many_bytes(message: str) -> InvalidArgument:
    return InvalidArgument("TOO_MANY_BYTES", message, field="chunk")
