"""Encoders, decoders and trackers, with a method for each of their calls."""

import asyncio
import contextlib
import math
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from maskwire.errors import DeadlineExceeded, MaskwireError, from_rpc
from maskwire.transport.caller import Caller
from maskwire.transport.calls import Attempt, call_with_retries
from maskwire.transport.channels import CHUNK_BYTES, Channels
from maskwire.transport.credentials import Credentials
from maskwire.transport.losses import Losses
from maskwire.transport.track_call import TrackCall
from maskwire.v1 import decoder_pb2, decoder_pb2_grpc, encoder_pb2, encoder_pb2_grpc, tracker_pb2, tracker_pb2_grpc

if TYPE_CHECKING:
    from maskwire.v1.encoder_pb2_grpc import EncoderServiceAsyncStub  # exists for type checkers only

T = TypeVar("T")

_HEDGE_S = 1.0
_PROBE = Caller(timeout_s=2, retry_s=1)


class Servers:
    """Connections to encoders, decoders and trackers. Callers share one; each call is told its `Caller`.

    Args:
        encoder: Address, "host:port", or several separated by commas; None: MASKWIRE_ENCODER, else localhost:50051.
        decoder: Likewise; None: MASKWIRE_DECODER, else localhost:50052.
        credentials: How to encrypt.
        dead_after_s: Seconds after which a server that stopped answering is given up.
        tracker: Address, likewise; None: MASKWIRE_TRACKER, else localhost:50053.
    """

    def __init__(
        self,
        encoder: str | None,
        decoder: str | None,
        credentials: Credentials,
        dead_after_s: float = 3,
        tracker: str | None = None,
    ) -> None:
        self.encoders = Channels("encoder", encoder, credentials, dead_after_s)
        self.decoders = Channels("decoder", decoder, credentials, dead_after_s)
        self.trackers = Channels("tracker", tracker, credentials, dead_after_s)
        # Files of several images at once would only slow each other down.
        self._uploading = asyncio.Semaphore(len(self.encoders.addresses))

    def __repr__(self) -> str:
        return " and ".join(f"{each.kind} at {', '.join(each.addresses)}" for each in (self.encoders, self.decoders))

    def check(self) -> None:
        """Raises FORKED in a forked process, and CLOSED after `close`."""
        self.encoders.check()

    async def close(self) -> None:
        """Closes the connections; later calls raise CLOSED."""
        await self.encoders.close()
        await self.decoders.close()
        await self.trackers.close()

    async def encode_image(
        self, header: encoder_pb2.EncodeImageHeader, data: bytes, caller: Caller
    ) -> encoder_pb2.EncodeImageResponse:
        """Embeds an image file, whose bytes are sent only if the encoder does not know them yet. The header has their
        digest and size."""

        async def send(attempt: Attempt) -> encoder_pb2.EncodeImageResponse:
            stub = encoder_pb2_grpc.EncoderServiceStub(attempt.channel)
            call: Any = stub.EncodeImage(timeout=attempt.left_s, metadata=attempt.metadata)
            try:
                await call.write(encoder_pb2.EncodeImageRequest(header=header))
                if ("maskwire-content", "needed") in (tuple(pair) for pair in await call.initial_metadata()):
                    await self._upload(attempt, call, data)
            except (asyncio.InvalidStateError, grpc.aio.AioRpcError):
                pass  # the call has ended before the upload; its answer tells why, better than the failed write does
            except asyncio.CancelledError:
                call.cancel()
                raise
            response: encoder_pb2.EncodeImageResponse = await call
            return response

        return await call_with_retries(self.encoders, caller, None, send)

    async def embed_image(self, header: encoder_pb2.EncodeImageHeader, data: bytes, caller: Caller) -> bytearray:
        """Embeds an image file that is not to be stored. Returns the embedding; see encoder.proto."""

        async def send(attempt: Attempt) -> bytearray:
            stub = encoder_pb2_grpc.EncoderServiceStub(attempt.channel)
            call: Any = stub.EmbedImage(timeout=attempt.left_s, metadata=attempt.metadata)
            embedding = bytearray()
            try:
                try:
                    await call.write(encoder_pb2.EncodeImageRequest(header=header))
                    await self._upload(attempt, call, data)
                except (asyncio.InvalidStateError, grpc.aio.AioRpcError):
                    pass  # as above: reading tells why
                while (part := await call.read()) is not grpc.aio.EOF:
                    embedding += part.chunk
            except asyncio.CancelledError:
                call.cancel()
                raise
            return embedding

        return await call_with_retries(self.encoders, caller, None, send)

    async def _upload(self, attempt: Attempt, call: Any, data: bytes) -> None:
        """Sends the file of an upload whose header was sent."""
        attempt.is_sent = False  # until all is sent, a connection that breaks says nothing of the image
        async with self._uploading:
            for start in range(0, len(data), CHUNK_BYTES):
                await call.write(encoder_pb2.EncodeImageRequest(chunk=data[start : start + CHUNK_BYTES]))
        await call.done_writing()
        attempt.is_sent = True

    async def get_image(self, request: encoder_pb2.GetImageRequest, caller: Caller) -> encoder_pb2.GetImageResponse:
        """Looks up what is stored under an image's name."""
        return await self._ask_encoder(caller, lambda stub: stub.GetImage, request)

    async def list_images(
        self, request: encoder_pb2.ListImagesRequest, caller: Caller
    ) -> encoder_pb2.ListImagesResponse:
        """Lists a page of the stored images; see encoder.proto."""
        return await self._ask_encoder(caller, lambda stub: stub.ListImages, request)

    async def delete_image(
        self, request: encoder_pb2.DeleteImageRequest, caller: Caller
    ) -> encoder_pb2.DeleteImageResponse:
        """Forgets an image's name, and its embedding too when asked."""
        request.call_id = request.call_id or uuid.uuid4().hex  # tells attempts from other calls
        return await self._ask_encoder(caller, lambda stub: stub.DeleteImage, request)

    async def list_models(self, caller: Caller) -> list[encoder_pb2.ModelInfo]:
        """Lists the models that the encoder serves, the default first."""
        response = await self._ask_encoder(caller, lambda stub: stub.ListModels, encoder_pb2.ListModelsRequest())
        return list(response.models)

    async def segment(self, request: decoder_pb2.SegmentRequest, caller: Caller) -> decoder_pb2.SegmentResponse:
        """Segments objects, preferably at the decoder that has the image in memory. A single click that takes longer
        than a second is sent to another decoder too."""

        async def send(attempt: Attempt) -> decoder_pb2.SegmentResponse:
            stub = decoder_pb2_grpc.DecoderServiceStub(attempt.channel)
            return await stub.Segment(request, timeout=attempt.left_s, metadata=attempt.metadata)

        # Many prompts, or an image that is waited for, may take longer for good reason.
        quick = len(request.prompts) == 1 and not request.wait_ms and not request.save_logits
        return await call_with_retries(self.decoders, caller, request.image_id, send, _HEDGE_S if quick else math.inf)

    async def generate_masks(
        self,
        request: decoder_pb2.GenerateMasksRequest,
        caller: Caller,
        crops: "asyncio.Future[None] | None" = None,
        losses: Losses | None = None,
    ) -> AsyncIterator[decoder_pb2.GenerateMasksResponse]:
        """Segments everything in an image. The call is retried until its first response has come; closing the iterator
        cancels it.

        Args:
            request: The image, the grid of points and the filters.
            caller: On whose behalf; its `timeout_s` holds for each response.
            crops: Embeds the crops that the request names meanwhile; if it fails, the call ends with its error.
            losses: The servers that were lost under this request before, and that will be.
        """

        async def send(attempt: Attempt) -> tuple[Any, Any]:
            stub = decoder_pb2_grpc.DecoderServiceStub(attempt.channel)
            call: Any = stub.GenerateMasks(request, metadata=attempt.metadata)
            try:
                async with asyncio.timeout(attempt.left_s):
                    return call, await call.read()
            except BaseException:
                call.cancel()
                raise

        lost = losses if losses is not None else Losses()
        call, response = await call_with_retries(self.decoders, caller, request.image_id, send, losses=lost)
        try:
            while response is not grpc.aio.EOF:
                yield response
                self.check()
                async with asyncio.timeout(caller.timeout_s):
                    reading = asyncio.ensure_future(call.read())
                    if crops is not None:
                        await asyncio.wait({reading, crops}, return_when=asyncio.FIRST_COMPLETED)
                        if crops.done():
                            crops.result()
                    response = await reading
        except TimeoutError as error:
            raise DeadlineExceeded(f"the decoder sent nothing for {caller.timeout_s:g} s") from error
        except grpc.aio.AioRpcError as error:
            lost.note(error)
            raise (lost.error("decoder") if lost.too_many else from_rpc(error, "decoder")) from error
        finally:
            call.cancel()

    def get_embedding(
        self, request: decoder_pb2.GetEmbeddingRequest, caller: Caller
    ) -> AsyncGenerator[decoder_pb2.GetEmbeddingResponse, None]:
        """Fetches an embedding; see `_download`."""

        def call(attempt: Attempt) -> Any:
            return decoder_pb2_grpc.DecoderServiceStub(attempt.channel).GetEmbedding(request, metadata=attempt.metadata)

        return self._download(call, request.image_id, caller)

    def get_decoder(
        self, request: decoder_pb2.GetDecoderRequest, caller: Caller
    ) -> AsyncGenerator[decoder_pb2.GetDecoderResponse, None]:
        """Fetches graphs of an exported decoder; see `_download`."""

        def call(attempt: Attempt) -> Any:
            return decoder_pb2_grpc.DecoderServiceStub(attempt.channel).GetDecoder(request, metadata=attempt.metadata)

        return self._download(call, None, caller)

    async def upload_clip(
        self,
        header: tracker_pb2.ClipHeader,
        parts: Callable[[], AsyncGenerator[tracker_pb2.FramePart, None]],
        caller: Caller,
    ) -> tracker_pb2.ClipInfo:
        """Uploads the frames of a clip; where a tracker is lost, from the beginning.

        Args:
            header: Describes the clip.
            parts: Yields the parts of the frames' files, anew at each call.
            caller: On whose behalf; its `timeout_s` holds for each part rather than for all.
        """

        async def send(attempt: Attempt) -> tracker_pb2.ClipInfo:
            call: Any = tracker_pb2_grpc.TrackerServiceStub(attempt.channel).UploadClip(metadata=attempt.metadata)

            async def write(message: tracker_pb2.UploadClipRequest) -> None:
                async with asyncio.timeout(caller.timeout_s):
                    await call.write(message)

            try:
                try:
                    await write(tracker_pb2.UploadClipRequest(header=header))
                    async with contextlib.aclosing(parts()) as coming:
                        async for part in coming:
                            await write(tracker_pb2.UploadClipRequest(frame=part))
                    await call.done_writing()
                except (asyncio.InvalidStateError, grpc.aio.AioRpcError):
                    pass  # the call has ended before the upload; its answer tells why
                async with asyncio.timeout(caller.timeout_s):
                    info: tracker_pb2.ClipInfo = await call
                    return info
            except BaseException:
                call.cancel()
                raise

        return await call_with_retries(self.trackers, caller, None, send)

    async def delete_clip(self, request: tracker_pb2.DeleteClipRequest, caller: Caller) -> None:
        """Deletes the frames of a clip, if it exists."""
        await self._ask_tracker(caller, lambda stub: stub.DeleteClip, request)

    async def get_track(self, request: tracker_pb2.GetTrackRequest, caller: Caller) -> tracker_pb2.TrackInfo:
        """Looks up what is stored of a track."""
        info: tracker_pb2.TrackInfo = await self._ask_tracker(caller, lambda stub: stub.GetTrack, request)
        return info

    async def delete_track(self, request: tracker_pb2.DeleteTrackRequest, caller: Caller) -> None:
        """Deletes a track, if it exists."""
        await self._ask_tracker(caller, lambda stub: stub.DeleteTrack, request)

    async def open_track(self, request: tracker_pb2.TrackRequest, caller: Caller) -> TrackCall:
        """Opens a track, a new one or one to go on with; while trackers are away or busy, tries again. `request` is the
        first one of the stream."""

        async def begin(attempt: Attempt) -> TrackCall:
            return await TrackCall.begin(attempt, request)

        return await call_with_retries(self.trackers, caller, request.open.track_id or None, begin)

    async def find_unavailable(self) -> list[str]:
        """Finds out, within two seconds, which of "encoder" and "decoder" no server answers for."""
        kinds = (self.encoders, self.decoders)
        serving = await asyncio.gather(*map(_is_any_serving, kinds))
        return [channels.kind for channels, is_serving in zip(kinds, serving, strict=True) if not is_serving]

    async def _download(
        self, begin: Callable[[Attempt], Any], image_id: str | None, caller: Caller
    ) -> AsyncGenerator[Any, None]:
        """Yields the responses of a call of the decoder. The call is retried until its first response has come; closing
        the iterator cancels it. The caller's `timeout_s` holds for each response."""

        async def send(attempt: Attempt) -> tuple[Any, Any]:
            call = begin(attempt)
            try:
                async with asyncio.timeout(attempt.left_s):
                    return call, await call.read()
            except BaseException:
                call.cancel()
                raise

        call, response = await call_with_retries(self.decoders, caller, image_id, send)
        try:
            while response is not grpc.aio.EOF:
                yield response
                self.check()
                async with asyncio.timeout(caller.timeout_s):
                    response = await call.read()
        except TimeoutError as error:
            raise DeadlineExceeded(f"the decoder sent nothing for {caller.timeout_s:g} s") from error
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, "decoder") from error
        finally:
            call.cancel()

    async def _ask_encoder(
        self, caller: Caller, method: "Callable[[EncoderServiceAsyncStub], Callable[..., Awaitable[T]]]", request: Any
    ) -> T:
        async def send(attempt: Attempt) -> T:
            stub = encoder_pb2_grpc.EncoderServiceStub(attempt.channel)
            return await method(stub)(request, timeout=attempt.left_s, metadata=attempt.metadata)

        return await call_with_retries(self.encoders, caller, None, send)

    async def _ask_tracker(
        self, caller: Caller, method: Callable[[Any], Callable[..., Awaitable[Any]]], request: Any
    ) -> Any:
        async def send(attempt: Attempt) -> Any:
            stub = tracker_pb2_grpc.TrackerServiceStub(attempt.channel)
            return await method(stub)(request, timeout=attempt.left_s, metadata=attempt.metadata)

        return await call_with_retries(self.trackers, caller, None, send)


async def _is_any_serving(channels: Channels) -> bool:
    async def check(attempt: Attempt) -> bool:
        stub = health_pb2_grpc.HealthStub(attempt.channel)
        response = await stub.Check(health_pb2.HealthCheckRequest(), timeout=attempt.left_s)
        return bool(response.status == health_pb2.HealthCheckResponse.SERVING)

    try:
        return await call_with_retries(channels, _PROBE, "", check)  # with "", retries go to the next server
    except MaskwireError:
        return False
