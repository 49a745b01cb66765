"""What a client and its sessions share: servers, the caller, and the images that were embedded."""

import asyncio
import hashlib
import re
import weakref
from collections.abc import Hashable
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, NamedTuple, TypedDict

from PIL import Image

from maskwire.downloads import fetch, is_url
from maskwire.errors import ImageNotFound, InvalidRequest, MaskwireError
from maskwire.image_cache import ImageCache
from maskwire.pictures import Channels, Stretch
from maskwire.prompts import OutputArguments, wait_ms
from maskwire.results import EmbeddedImage
from maskwire.sources import DEFAULT_READING, STRETCHES, ImageLike, Reading, Source
from maskwire.transport import Caller, Servers, tracing
from maskwire.v1 import encoder_pb2

_FILE_ENDINGS = frozenset(Image.registered_extensions()) | {".heic", ".heif", ".avif", ".svg", ".npy", ".pdf"}


class ImageArguments(TypedDict, total=False):
    """Keyword arguments that say which image is meant, beside the image itself.

    Attributes:
        image_id: Name of a stored image; together with a picture, the name to store it under.
        model: Name of the model that must have embedded the image. A picture is embedded with it; for a stored
            image of another model an error is raised. Empty for the default model, or any for a stored image.
        wait_s: How long to wait for an image that another caller is embedding, in seconds, at most 60.
        channels: Order of an array's colour channels. Use "bgr" for what OpenCV's imread returns.
        stretch: How samples are mapped to 8 bits; see `embed`.
    """

    image_id: str | None
    model: str
    wait_s: float
    channels: Channels
    stretch: Stretch


class SegmentArguments(ImageArguments, OutputArguments, total=False):
    """`ImageArguments` and `OutputArguments`."""


class AskedImage(NamedTuple):
    """An image as a call asks for it; see `ImageArguments`."""

    image: ImageLike | EmbeddedImage | None
    image_id: str | None = None
    model: str = ""
    wait_ms: int = 0
    reading: Reading = DEFAULT_READING

    @classmethod
    def of(cls, image: ImageLike | EmbeddedImage | None, arguments: ImageArguments) -> "AskedImage":
        """Checks and converts the arguments of a call.

        Raises:
            InvalidRequest: BAD_WAIT.
        """
        reading = Reading(arguments.get("channels", "rgb"), arguments.get("stretch", "auto"))
        waiting_ms = wait_ms(arguments.get("wait_s", 0))
        return cls(image, arguments.get("image_id"), arguments.get("model", ""), waiting_ms, reading)


@dataclass(frozen=True)
class Wanted:
    """An image as a call names it."""

    image_id: str  # the name to ask the servers for
    stored: EmbeddedImage | None  # what is stored of the image; None where the call gave a name alone
    source: Source | None  # its picture, likewise
    model: str  # the model that must have embedded it; empty for any
    may_be_path: bool = False  # whether the name looks like a file's

    def not_found(self, error: ImageNotFound) -> MaskwireError:
        """Makes the error to raise where no such image is stored: for a file's name, that there is no such file."""
        if not self.may_be_path or error.reason != "IMAGE_NOT_FOUND":
            return error
        return InvalidRequest(
            f"no such file: {self.image_id}; nor is an image stored under that name", "NO_SUCH_FILE", "image"
        )


class Connection:
    """One caller's use of the servers.

    Args:
        servers: Encoders and decoders.
        caller: On whose behalf they are called.
        closes_servers: Whether `close` ends the connections to the servers, rather than this caller's sessions alone.
    """

    def __init__(self, servers: Servers, caller: Caller, *, closes_servers: bool = True) -> None:
        self.servers = servers
        self.caller = caller
        self.images = ImageCache()
        self._closes_servers = closes_servers
        self._sessions: weakref.WeakSet[Any] = weakref.WeakSet()

    def __repr__(self) -> str:
        namespace = f", namespace {self.caller.namespace!r}" if self.caller.namespace else ""
        return f"{self.servers!r}{namespace}"

    def acting_as(self, token: str, namespace: str) -> "Connection":
        """Makes another caller's use of the same servers; see `AsyncClient.acting_as`."""
        return Connection(self.servers, replace(self.caller, token=token, namespace=namespace), closes_servers=False)

    def closes_with(self, session: Any) -> None:
        """Has `close` close a session too, if it is still in use then."""
        self._sessions.add(session)

    async def close(self) -> None:
        """Closes the sessions, and the connections to the servers if they are this connection's own."""
        for session in list(self._sessions):
            await session.close()
        if self._closes_servers:
            await self.servers.close()

    async def embed(self, source: Source, image_id: str | None, model: str = "", bulk: bool = False) -> EmbeddedImage:
        """Embeds an image, and remembers it; see `AsyncClient.embed`."""

        def prepare() -> tuple[Hashable, bytes, bytes]:
            identity = source.identify()  # before its bytes: a file that changes meanwhile is embedded again next time
            data = source.read()
            return identity, data, hashlib.sha256(data).digest()

        identity, data, digest = await asyncio.to_thread(prepare)
        header = encoder_pb2.EncodeImageHeader(
            image_id=image_id or "",
            namespace=self.caller.namespace,
            sha256=digest,
            size_bytes=len(data),
            model=model,
            priority=encoder_pb2.PRIORITY_BULK if bulk else encoder_pb2.PRIORITY_INTERACTIVE,
            stretch=STRETCHES[source.stretch],
        )
        with tracing.span("embed"):
            response = await self.servers.encode_image(header, data, self.caller)
        stored = EmbeddedImage.from_messages(response.image, response.cached, response.timings)
        self.images.add(identity, image_id, model, source, stored)
        return stored

    async def get(self, image_id: str) -> EmbeddedImage:
        """Looks up what is stored under a name; see `AsyncClient.get`."""
        request = encoder_pb2.GetImageRequest(image_id=image_id, namespace=self.caller.namespace)
        return EmbeddedImage.from_messages((await self.servers.get_image(request, self.caller)).image)

    async def source_of(self, image: ImageLike | EmbeddedImage, reading: Reading = DEFAULT_READING) -> Source:
        """Finds the picture of an image that was given itself.

        Raises:
            InvalidRequest: There is none, or it cannot be read.
        """
        if isinstance(image, EmbeddedImage):
            source = self.images.source(image.image_id, image.content_key)
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

    async def resolve(self, asked: AskedImage) -> Wanted:
        """Finds the image that a call asks for; a picture is embedded if this client has not done so yet."""
        image, image_id, model = asked.image, asked.image_id, asked.model
        self.servers.check()
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
            source = self.images.source(image.image_id, image.content_key)
            return Wanted(image.image_id, replace(image, cached=True), source, model)
        if isinstance(image, str) and image_id is None and self.images.knows(image):
            return Wanted(image, None, None, model)
        if isinstance(image, str) and image_id is None and not _is_file(image) and not is_url(image):
            return Wanted(image, None, None, model, looks_like_a_file(image))
        source = await self.source_of(image, asked.reading)
        stored = self.images.stored(await asyncio.to_thread(source.identify), image_id, model)
        if stored is None:
            stored = await self.embed(source, image_id, model)
        else:
            stored = replace(stored, cached=True)
        return Wanted(stored.image_id, stored, source, model)

    async def embed_again(self, wanted: Wanted) -> EmbeddedImage | None:
        """Embeds an image that the store has lost, by the model that embedded it before. Returns None if this client
        does not have its picture."""
        source = wanted.source or self.images.source(wanted.image_id)
        if source is None:
            return None
        model = wanted.model or (wanted.stored.model if wanted.stored else self.images.model(wanted.image_id))
        return await self.embed(source, wanted.image_id, model)


def _is_file(name: str) -> bool:
    try:
        return Source(name).identify() is not None
    except MaskwireError:
        return False


def looks_like_a_file(name: str) -> bool:
    """Whether a name that is no existing file was meant as one rather than as the name of a stored image."""
    return any(separator in name for separator in "/\\") or PurePath(name).suffix.lower() in _FILE_ENDINGS


def in_callers_words(error: InvalidRequest) -> InvalidRequest:
    """An error about the only prompt of a request, with the argument of `segment` as its field."""
    field = error.field.removeprefix("prompts[0].")
    if field == error.field:
        return error
    field = re.sub(r"^points\[(\d+)\]\.label$", r"labels[\1]", field)
    field = re.sub(r"^(points\[\d+\]|box|mask)[._].*$", r"\1", field)
    return type(error)(error.message, error.reason, field, error.retry_after_s)
