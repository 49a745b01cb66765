"""What clients, sessions and generators share: servers, calls, and the images that were embedded."""

import asyncio
import copy
import hashlib
import math
import re
import weakref
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, Self, TypeVar

import grpc
from PIL import Image

from maskwire.downloads import fetch, is_url
from maskwire.errors import ImageNotFound, InvalidRequest, MaskwireError
from maskwire.image_cache import Memory
from maskwire.results import EmbeddedImage
from maskwire.sources import DEFAULT_READING, STRETCHES, ImageLike, Reading, Source
from maskwire.transport import tracing
from maskwire.transport.calls import retrying, upload
from maskwire.transport.channels import DEFAULT_DECODER, DEFAULT_ENCODER, Channels
from maskwire.transport.credentials import Credentials, authorization
from maskwire.v1 import decoder_pb2, decoder_pb2_grpc, encoder_pb2, encoder_pb2_grpc

T = TypeVar("T")

_HEDGE_S = 1.0
_ENDINGS = frozenset(Image.registered_extensions()) | {".heic", ".heif", ".avif", ".svg", ".npy", ".pdf"}


@dataclass(frozen=True)
class Wanted:
    """An image as a call names it.

    Attributes:
        image_id: The name to ask for.
        stored: What is stored of it, for an image that was given itself.
        source: Its picture, likewise.
        model: The model that must have embedded it; empty for any.
        may_be_path: Whether the name looks like a file's.
    """

    image_id: str
    stored: EmbeddedImage | None
    source: Source | None
    model: str
    may_be_path: bool = False

    def missing(self, error: ImageNotFound) -> MaskwireError:
        """What to raise where no such image is stored."""
        if not self.may_be_path or error.reason != "IMAGE_NOT_FOUND":
            return error
        return InvalidRequest(
            f"no such file: {self.image_id}; nor is an image stored under that name", "NO_SUCH_FILE", "image"
        )


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
        self._closing: weakref.WeakSet[Any] = weakref.WeakSet()
        self._uploading = asyncio.Semaphore(len(self.encoders.addresses))

    def __repr__(self) -> str:
        servers = [f"{each.kind} at {', '.join(each.addresses)}" for each in (self.encoders, self.decoders)]
        namespace = f", namespace {self.namespace!r}" if self.namespace else ""
        return " and ".join(servers) + namespace

    def check(self) -> None:
        """Refuses to go on in a forked process, or after `close`.

        Raises:
            MaskwireError: FORKED or CLOSED.
        """
        self.encoders.check()

    def closes_with(self, session: Any) -> None:
        """Has a session closed when the connections are, if it is still in use then."""
        self._closing.add(session)

    async def close(self) -> None:
        for session in list(self._closing):
            await session.close()
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
        self.memory.add(identity, image_id, model, source, stored)
        return stored

    async def upload(self, header: encoder_pb2.EncodeImageHeader, data: bytes) -> encoder_pb2.EncodeImageResponse:
        """Embeds an image file; its bytes are sent if they are not known yet."""
        return await self.call_encoder(lambda stub, timeout: upload(stub, header, data, timeout, self._uploading))

    async def get(self, image_id: str) -> EmbeddedImage:
        """What is stored under a name; see `AsyncClient.get`."""
        request = encoder_pb2.GetImageRequest(image_id=image_id, namespace=self.namespace)
        response = await self.call_encoder(lambda stub, timeout: stub.GetImage(request, timeout=timeout))
        return EmbeddedImage.read(response.image)

    async def list_images(self, prefix: str, size: int, token: str) -> encoder_pb2.ListImagesResponse:
        """A page of the stored images; see encoder.proto."""
        request = encoder_pb2.ListImagesRequest(
            namespace=self.namespace, prefix=prefix, page_size=size, page_token=token
        )
        return await self.call_encoder(lambda stub, timeout: stub.ListImages(request, timeout=timeout))

    async def source_of(self, image: ImageLike | EmbeddedImage, reading: Reading = DEFAULT_READING) -> Source:
        """The picture of an image that was given itself.

        Raises:
            InvalidRequest: It is none, or cannot be read.
        """
        if isinstance(image, EmbeddedImage):
            source = self.memory.source(image.image_id, image.content_key)
            if source is None:
                raise InvalidRequest(
                    f"{image.image_id!r} is embedded already, and this client has not seen its picture; pass that",
                    "NO_PICTURE",
                    "image",
                )
            return source
        if isinstance(image, str) and is_url(image):
            return Source(await asyncio.to_thread(fetch, image), reading)
        return await asyncio.to_thread(Source, image, reading)

    async def resolve(
        self,
        image: ImageLike | EmbeddedImage | None,
        image_id: str | None,
        model: str,
        reading: Reading = DEFAULT_READING,
    ) -> Wanted:
        """The image that a call names; a picture is embedded if this client has not done so yet."""
        self.check()
        if not isinstance(model, str):
            raise InvalidRequest(f"model is {model!r}; give the name of a model", "BAD_MODEL", "model")
        if image is None:
            if not isinstance(image_id, str):
                raise InvalidRequest("give an image or an image_id", "NO_IMAGE", "image")
            return Wanted(image_id, None, None, model)
        if isinstance(image, EmbeddedImage):
            if image_id not in (None, image.image_id):
                raise InvalidRequest(
                    f"the image is embedded as {image.image_id!r}; leave image_id out", "TWO_IMAGE_IDS", "image_id"
                )
            source = self.memory.source(image.image_id, image.content_key)
            return Wanted(image.image_id, replace(image, cached=True), source, model)
        if isinstance(image, str) and image_id is None and self.memory.knows(image):
            return Wanted(image, None, None, model)
        if isinstance(image, str) and image_id is None and not _is_file(image) and not is_url(image):
            return Wanted(image, None, None, model, looks_like_a_file(image))
        source = await self.source_of(image, reading)
        stored = self.memory.stored(await asyncio.to_thread(source.identify), image_id, model)
        if stored is None:
            stored = await self.embed(source, image_id, model)
        else:
            stored = replace(stored, cached=True)
        return Wanted(stored.image_id, stored, source, model)

    async def embed_again(self, wanted: Wanted) -> EmbeddedImage | None:
        """Embeds an image that the store has lost, by the model that embedded it before; None if this client does not
        have its picture."""
        source = wanted.source or self.memory.source(wanted.image_id)
        if source is None:
            return None
        model = wanted.model or (wanted.stored.model if wanted.stored else self.memory.model(wanted.image_id))
        return await self.embed(source, wanted.image_id, model)

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


def looks_like_a_file(name: str) -> bool:
    """Whether a name that is no existing file was meant as one rather than as the name of a stored image."""
    return any(separator in name for separator in "/\\") or PurePath(name).suffix.lower() in _ENDINGS


def in_callers_words(error: InvalidRequest) -> InvalidRequest:
    """An error about the only prompt of a request, with the argument of `segment` as its field."""
    field = error.field.removeprefix("prompts[0].")
    if field == error.field:
        return error
    field = re.sub(r"^points\[(\d+)\]\.label$", r"labels[\1]", field)
    field = re.sub(r"^(points\[\d+\]|box|mask)[._].*$", r"\1", field)
    return type(error)(error.message, error.reason, field, error.retry_after_s)
