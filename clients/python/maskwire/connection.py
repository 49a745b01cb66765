"""What clients, sessions and generators share: servers, calls, and the images that were embedded."""

import asyncio
import copy
import hashlib
import math
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import replace
from typing import Self, TypeVar

import grpc

from maskwire import tracing
from maskwire.calls import retrying, upload
from maskwire.channels import DEFAULT_DECODER, DEFAULT_ENCODER, Channels
from maskwire.credentials import Credentials, authorization
from maskwire.errors import InvalidRequest, MaskwireError
from maskwire.memory import Memory
from maskwire.results import EmbeddedImage
from maskwire.sources import DEFAULT_READING, STRETCHES, ImageLike, Reading, Source
from maskwire.v1 import decoder_pb2, decoder_pb2_grpc, encoder_pb2, encoder_pb2_grpc

T = TypeVar("T")

_HEDGE_S = 1.0


class Connection:
    """Arguments as of `AsyncClient`."""

    def __init__(
        self,
        encoder: str | None,
        decoder: str | None,
        namespace: str,
        timeout_s: float,
        retry_s: float,
        credentials: Credentials,
        dead_after_s: float = 3,
    ) -> None:
        self.namespace = namespace
        self.timeout_s = timeout_s
        self.retry_s = retry_s
        self.decoders = Channels("decoder", decoder, DEFAULT_DECODER, credentials, dead_after_s)
        self.memory = Memory()
        self.encoders = Channels("encoder", encoder, DEFAULT_ENCODER, credentials, dead_after_s)
        self._uploading = asyncio.Semaphore(len(self.encoders.addresses))

    async def close(self) -> None:
        await self.encoders.close()
        await self.decoders.close()

    def acting_as(self, token: str, namespace: str) -> Self:
        """The same connections; see `AsyncClient.acting_as`."""
        other = copy.copy(self)
        other.namespace = namespace
        other.memory = Memory()  # what one caller has embedded is nobody else's to know
        metadata = authorization(token)
        other.decoders, other.encoders = self.decoders.acting_as(metadata), self.encoders.acting_as(metadata)
        return other

    async def embed(self, source: Source, image_id: str | None, model: str = "", bulk: bool = False) -> EmbeddedImage:
        """Embeds an image, and remembers it; see `AsyncClient.embed`."""

        def prepare() -> tuple[Hashable, bytes, bytes]:
            identity = source.identify()  # before its bytes: a file that changes meanwhile is embedded again next time
            data = source.read()
            return identity, data, hashlib.sha256(data).digest()

        identity, data, digest = await asyncio.to_thread(prepare)
        header = encoder_pb2.EncodeImageHeader(
            image_id=image_id or "",
            namespace=self.namespace,
            sha256=digest,
            size_bytes=len(data),
            model=model,
            priority=encoder_pb2.PRIORITY_BULK if bulk else encoder_pb2.PRIORITY_INTERACTIVE,
            stretch=STRETCHES[source.stretch],
        )
        with tracing.span("embed"):
            response = await self.upload(header, data)
        stored = EmbeddedImage.read(response.image, response.cached, response.timings)
        self.memory.add(identity, image_id, source, stored)
        return stored

    async def upload(self, header: encoder_pb2.EncodeImageHeader, data: bytes) -> encoder_pb2.EncodeImageResponse:
        """Embeds an image file; its bytes are sent if they are not known yet."""
        return await self.call_encoder(lambda stub, timeout: upload(stub, header, data, timeout, self._uploading))

    async def get(self, image_id: str) -> EmbeddedImage:
        """What is stored under a name; see `AsyncClient.get`."""
        request = encoder_pb2.GetImageRequest(image_id=image_id, namespace=self.namespace)
        response = await self.call_encoder(lambda stub, timeout: stub.GetImage(request, timeout=timeout))
        return EmbeddedImage.read(response.image)

    async def resolve(
        self, image: ImageLike | None, image_id: str | None, reading: Reading = DEFAULT_READING
    ) -> tuple[str, EmbeddedImage | None, Source | None]:
        """The name to ask for; and for an image that was given itself, what is stored of it, and its bytes."""
        if image is None:
            if image_id is None:
                raise InvalidRequest("give an image or an image_id", "NO_IMAGE", "image")
            return image_id, None, None
        if isinstance(image, str) and image_id is None and (self.memory.knows(image) or not _is_file(image)):
            return image, None, None
        source = await asyncio.to_thread(Source, image, reading)
        stored = self.memory.stored(await asyncio.to_thread(source.identify), image_id)
        if stored is None:
            stored = await self.embed(source, image_id)
        else:
            stored = replace(stored, cached=True)
        return stored.image_id, stored, source

    async def call_encoder(
        self, call: "Callable[[encoder_pb2_grpc.EncoderServiceAsyncStub, float], Awaitable[T]]"
    ) -> T:
        """Makes a unary call of an encoder."""

        async def attempt(channel: grpc.aio.Channel, timeout_s: float) -> T:
            return await call(encoder_pb2_grpc.EncoderServiceStub(channel), timeout_s)

        return await retrying(self.encoders, None, attempt, self.timeout_s, self.retry_s)

    async def call_decoder(self, request: decoder_pb2.SegmentRequest) -> decoder_pb2.SegmentResponse:
        """Makes the call, by preference of the decoder that has the image."""

        async def attempt(channel: grpc.aio.Channel, timeout_s: float) -> decoder_pb2.SegmentResponse:
            stub: decoder_pb2_grpc.DecoderServiceAsyncStub = decoder_pb2_grpc.DecoderServiceStub(channel)
            return await stub.Segment(request, timeout=timeout_s)

        # A click is answered much sooner; many prompts, or an image that is waited for, take their time.
        quick = len(request.prompts) == 1 and not request.wait_ms and not request.save_logits
        hedge_s = _HEDGE_S if quick else math.inf
        return await retrying(self.decoders, request.image_id, attempt, self.timeout_s, self.retry_s, hedge_s)


def _is_file(name: str) -> bool:
    try:
        return Source(name).identify() is not None
    except MaskwireError:
        return False
