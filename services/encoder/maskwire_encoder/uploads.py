"""Many uploads mixed on one stream."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from maskwire.v1 import encoder_pb2 as pb
from maskwire_core.call_context import current
from maskwire_core.errors import InvalidArgument, ResourceExhausted
from maskwire_core.rpc.error_status import status_of
from maskwire_core.rpc.interceptor import Context

from maskwire_encoder.encoder import ImageEncoder, Upload

MAX_IN_FLIGHT = 16
"""Uploads of one stream that may be open at the same time."""

_MAX_UNREAD = 64  # answers that may wait before no more requests are read


@dataclass
class _Receiving:
    upload: Upload
    started: float = field(default_factory=time.perf_counter)
    data: bytearray = field(default_factory=bytearray)


class Uploads:
    """The uploads of one EncodeImages stream."""

    def __init__(self, encoder: ImageEncoder, context: Context) -> None:
        self._encoder = encoder
        self._context = context
        self._open: dict[str, _Receiving | None] = {}  # None while nothing is to be received
        self._replies: asyncio.Queue[pb.EncodeImagesResponse | None] = asyncio.Queue()
        self._taken = asyncio.Event()

    async def answer(self, requests: AsyncIterator[pb.EncodeImagesRequest]) -> AsyncIterator[pb.EncodeImagesResponse]:
        """Yields answers as they are ready, until all requests are answered."""
        receiver = asyncio.create_task(self._receive(requests))
        receiver.add_done_callback(lambda _: self._replies.put_nowait(None))
        try:
            while (reply := await self._replies.get()) is not None:
                self._taken.set()
                yield reply
            await receiver
        finally:
            receiver.cancel()

    async def _receive(self, requests: AsyncIterator[pb.EncodeImagesRequest]) -> None:
        async with asyncio.TaskGroup() as tasks:
            async for request in requests:
                while self._replies.qsize() >= _MAX_UNREAD:
                    self._taken.clear()
                    await self._taken.wait()
                name = request.request_id
                try:
                    if request.WhichOneof("frame") == "header":
                        current().caller.charge(requests=1)
                        if name in self._open:
                            raise InvalidArgument(
                                "REQUEST_ID_IN_USE", f"upload {name!r} is still in flight", field="request_id"
                            )
                        if len(self._open) >= MAX_IN_FLIGHT:
                            raise ResourceExhausted(
                                "TOO_MANY_UPLOADS",
                                f"{MAX_IN_FLIGHT} uploads of this stream are in flight; wait for an answer",
                                retry_after_s=0.5,
                            )
                        self._open[name] = None
                        tasks.create_task(self._begin(name, request.header))
                    elif (received := self._chunk(name, request.chunk)) is not None:
                        tasks.create_task(self._encode(name, received))
                except Exception as error:  # told to the caller, whose stream lives on
                    self._fail(name, error)
        for name in self._open:  # all tasks have ended: what is open waits for chunks that will not come
            self._fail(name, InvalidArgument("INCOMPLETE", "the stream ended before all bytes had come", field="chunk"))

    async def _begin(self, name: str, header: pb.EncodeImageHeader) -> None:
        try:
            upload = self._encoder.accept(header, self._context.peer(), self._context.time_remaining())
            stored = await self._encoder.find(upload)
        except Exception as error:  # as above
            self._open.pop(name)
            self._fail(name, error)
            return
        if stored is not None:
            self._open.pop(name)
            self._replies.put_nowait(pb.EncodeImagesResponse(request_id=name, result=stored))
        else:
            self._open[name] = _Receiving(upload)
            needed = pb.ContentNeeded()
            self._replies.put_nowait(pb.EncodeImagesResponse(request_id=name, content_needed=needed))

    def _chunk(self, name: str, chunk: bytes) -> _Receiving | None:
        """Adds a chunk. Returns the upload when it is complete."""
        receiving = self._open.get(name)
        if receiving is None:
            raise InvalidArgument(
                "UNEXPECTED_CHUNK", f"no upload {name!r} waits for content; send its header and wait", field="chunk"
            )
        receiving.data += chunk
        if len(receiving.data) < receiving.upload.size_bytes:
            return None
        self._open[name] = None
        return receiving

    async def _encode(self, name: str, received: _Receiving) -> None:
        try:
            receive_ms = (time.perf_counter() - received.started) * 1e3
            result = await self._encoder.encode(received.upload, bytes(received.data), receive_ms)
            self._open.pop(name)
            self._replies.put_nowait(pb.EncodeImagesResponse(request_id=name, result=result))
        except Exception as error:  # as above
            self._open.pop(name)
            self._fail(name, error)

    def _fail(self, name: str, error: Exception) -> None:
        self._replies.put_nowait(pb.EncodeImagesResponse(request_id=name, error=status_of(error)))
