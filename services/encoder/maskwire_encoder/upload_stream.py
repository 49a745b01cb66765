"""EncodeImages: the frames of many uploads, mixed on one stream."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import ParamSpec

from maskwire.v1 import encoder_pb2 as pb
from maskwire_core import names
from maskwire_core.call_context import current
from maskwire_core.errors import InvalidArgument, ResourceExhausted
from maskwire_core.rpc.error_status import status_of
from maskwire_core.rpc.interceptor import Context
from maskwire_core.tenancy.tenant import rate_limited

from maskwire_encoder.encoder import ImageEncoder
from maskwire_encoder.receiving import Receiving, too_many_bytes
from maskwire_encoder.upload import accept

P = ParamSpec("P")

MAX_IN_FLIGHT = 16
"""Most uploads of a stream that are in flight at the same time."""

_MAX_UNSENT = 64  # responses that may wait to be sent before reading requests pauses
_CHECK_S = 1  # from one look for stalled uploads to the next


class UploadStream:
    """One EncodeImages call.

    Args:
        encoder: Encodes the images.
        context: The call.
    """

    def __init__(self, encoder: ImageEncoder, context: Context) -> None:
        self._encoder = encoder
        self._context = context
        self._in_flight: dict[str, Receiving | None] = {}  # by request_id; None while no chunk is expected
        self._responses: asyncio.Queue[pb.EncodeImagesResponse | None] = asyncio.Queue()
        self._sent = asyncio.Event()
        self._complete: set[Receiving] = set()
        # Bytes that were announced, and thereby paid for, but not asked for any more: they may be on their way.
        self._forgone = 0
        self._unasked = 0  # bytes that came for no upload

    async def respond(self, requests: AsyncIterator[pb.EncodeImagesRequest]) -> AsyncIterator[pb.EncodeImagesResponse]:
        """Yields responses as they become ready, until every request has been answered."""
        receiver = asyncio.create_task(self._receive(requests))
        receiver.add_done_callback(lambda _: self._responses.put_nowait(None))
        watch = asyncio.create_task(self._end_stalled())
        try:
            while (response := await self._responses.get()) is not None:
                self._sent.set()
                yield response
            await receiver
        finally:
            receiver.cancel()
            watch.cancel()
            for receiving in (*self._in_flight.values(), *self._complete):
                if receiving is not None:
                    receiving.close()

    async def _receive(self, requests: AsyncIterator[pb.EncodeImagesRequest]) -> None:
        async with asyncio.TaskGroup() as tasks:
            async for request in requests:
                while self._responses.qsize() >= _MAX_UNSENT:
                    self._sent.clear()
                    await self._sent.wait()
                name = request.request_id
                if request.WhichOneof("frame") != "header":
                    self._check_size(name, len(request.chunk))  # what it raises ends the stream
                try:
                    names.request_id(name)
                    if request.WhichOneof("frame") == "header":
                        current().caller.charge(requests=1)
                        self._check_header(name)
                        self._in_flight[name] = None
                        tasks.create_task(self._answer(name, self._find, name, request.header))
                    elif (receiving := await self._add_chunk(name, request.chunk)) is not None:
                        tasks.create_task(self._answer(name, self._encode, receiving))
                except Exception as error:  # fails this upload; the stream goes on
                    self._fail(name, error)
        # All tasks have ended, so that uploads still in flight lack chunks.
        for name in self._in_flight:
            self._fail(name, InvalidArgument("INCOMPLETE", "the stream ended before all bytes had come", field="chunk"))

    def _check_header(self, name: str) -> None:
        if name in self._in_flight:
            raise InvalidArgument("REQUEST_ID_IN_USE", f"upload {name!r} is still in flight", field="request_id")
        if len(self._in_flight) >= MAX_IN_FLIGHT:
            raise ResourceExhausted(
                "TOO_MANY_UPLOADS",
                f"{MAX_IN_FLIGHT} uploads of this stream are in flight; wait for an answer",
                retry_after_s=0.5,
            )

    def _check_size(self, name: str, nbytes: int) -> None:
        """Charges for bytes that nobody announced.

        Raises:
            InvalidArgument: TOO_MANY_BYTES: more came for an upload than announced, or too much for none.
            ResourceExhausted: RATE_LIMITED: the tenant cannot pay for them.
        """
        receiving = self._in_flight.get(name)
        if receiving is not None:
            receiving.check(nbytes)
            return
        forgone = min(nbytes, self._forgone)  # on its way when its upload failed
        self._forgone -= forgone
        self._unasked += nbytes - forgone
        wait_s = current().caller.owe(nbytes - forgone)
        if self._unasked > self._encoder.settings.max_image_bytes:
            raise too_many_bytes("bytes came for no upload, and went on coming")
        if wait_s:
            raise rate_limited(wait_s)

    async def _add_chunk(self, name: str, chunk: bytes) -> Receiving | None:
        """Appends a chunk to an upload. Returns the upload if that completes it."""
        receiving = self._in_flight.get(name)
        if receiving is None:
            raise InvalidArgument(
                "UNEXPECTED_CHUNK", f"no upload {name!r} waits for content; send its header and wait", field="chunk"
            )
        try:
            await receiving.add(chunk)
        except Exception:
            self._give_up(name, receiving)
            raise
        if receiving.missing:
            return None
        self._in_flight[name] = None
        self._complete.add(receiving)
        return receiving

    def _give_up(self, name: str, receiving: Receiving) -> None:
        """Ends an upload of which not all bytes have come."""
        del self._in_flight[name]
        self._forgone += receiving.missing
        receiving.close()

    async def _end_stalled(self) -> None:
        while True:
            await asyncio.sleep(_CHECK_S)
            for name, receiving in list(self._in_flight.items()):
                if receiving is not None and receiving.left_s <= 0:
                    error = receiving.stalled()
                    self._give_up(name, receiving)
                    self._fail(name, error)

    async def _find(self, name: str, header: pb.EncodeImageHeader) -> pb.EncodeImageResponse | None:
        """Returns the response to an upload that needs no encoding; otherwise asks for its file."""
        encoder = self._encoder
        upload = accept(header, encoder.models, encoder.settings, self._context.peer(), self._context.time_remaining())
        found = await self._encoder.find(upload)
        if found is None:
            self._in_flight[name] = Receiving(upload, self._encoder.spool, self._encoder.settings.upload_pause_s)
            needed = pb.ContentNeeded()
            self._responses.put_nowait(pb.EncodeImagesResponse(request_id=name, content_needed=needed))
        return found

    async def _encode(self, receiving: Receiving) -> pb.EncodeImageResponse:
        assert receiving.file is not None
        try:
            return await self._encoder.encode(receiving.upload, receiving.file, receiving.asked_at)
        finally:
            self._complete.discard(receiving)
            receiving.close()

    async def _answer(
        self, name: str, work: Callable[P, Awaitable[pb.EncodeImageResponse | None]], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Works on an upload, and ends it with the response or the error, if there is one."""
        try:
            result = await work(*args, **kwargs)
        except Exception as error:  # as above
            del self._in_flight[name]
            self._fail(name, error)
            return
        if result is not None:
            del self._in_flight[name]
            self._responses.put_nowait(pb.EncodeImagesResponse(request_id=name, result=result))

    def _fail(self, name: str, error: Exception) -> None:
        told = name[: names.MAX_REQUEST_ID]
        self._responses.put_nowait(pb.EncodeImagesResponse(request_id=told, error=status_of(error)))
