"""What a client and its sessions share: servers, the caller, and the images that were embedded."""

import asyncio
import os
import re
import weakref
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, Literal, NamedTuple, TypedDict, TypeVar

from PIL import Image

from maskwire.downloads import fetch, is_url
from maskwire.errors import FailedPrecondition, ImageNotFound, InvalidRequest, MaskwireError
from maskwire.image_cache import ImageCache
from maskwire.pictures import Channels, Stretch
from maskwire.prompts import OutputArguments, wait_ms
from maskwire.regions import Place, Region, check_region
from maskwire.results import EmbeddedImage
from maskwire.sources import DEFAULT_READING, STRETCHES, ImageLike, LastPicture, Reading, Source, part_of_picture
from maskwire.tiles import tiles_of
from maskwire.transport import Caller, Servers, tracing
from maskwire.transport.calls import EMBEDS
from maskwire.v1 import encoder_pb2, types_pb2

T = TypeVar("T")

_TILES_IN_FLIGHT = 2
_FILE_ENDINGS = frozenset(Image.registered_extensions()) | {".heic", ".heif", ".avif", ".svg", ".npy", ".pdf"}


class ReadingArguments(TypedDict, total=False):
    """Keyword arguments that say how to read a picture.

    Attributes:
        channels: Order of an array's colour channels: "rgb" unless it is "bgr", as OpenCV's imread returns it.
        stretch: How samples are mapped to 8 bits. "range" maps the lowest sample to black and the highest to white,
            "percentile" the 1st percentile and the 99th, and "none" the limits of the sample type. "auto", the default,
            is "range" for pictures of more than 8 bits that stay below a quarter of their type's range, else "none".
    """

    channels: Channels
    stretch: Stretch


class EmbedArguments(ReadingArguments, total=False):
    """Keyword arguments that say how to embed a picture.

    Attributes:
        model: Name of the model; empty for the server's default.
        bulk: Low priority: interactive images go first.
        tiles: Also embed the tiles in which `everything` looks at a large picture with `tiles=True`, with low priority;
            False. Those that are stored are not encoded again.
        keep_source: Have the encoder keep the picture's file, too, if it was started with `--keep-sources-s`: whoever
            knows the image's name alone can then ask for regions of it; False.
    """

    model: str
    bulk: bool
    tiles: bool
    keep_source: bool


class ImageArguments(ReadingArguments, total=False):
    """Keyword arguments that say which image is meant, beside the image itself.

    Attributes:
        image_id: Name of a stored image; together with a picture, the name to store it under.
        model: Name of the model that must have embedded the image. A picture is embedded with it; for a stored
            image of another model an error is raised. Empty for the default model, or any for a stored image.
        wait_s: How long to wait for an image that another caller is embedding, in seconds, at most 60.
        channels: Order of an array's colour channels. Use "bgr" for what OpenCV's imread returns.
        stretch: How samples are mapped to 8 bits; see `embed`.
        region: The part of the image to look at, (x_min, y_min, x_max, y_max) in whole pixels: it is cut out and
            embedded at the model's full resolution. Prompts must lie in it; they and the masks are in pixels of the
            whole image all the same. "auto", for `segment`, `segment_objects` and sessions: a square for each prompt,
            of whose side the object takes a third to a half: around its box or its mask; else clicks are answered from
            near by first, and from farther away until the mask lies within. None: the whole image.
    """

    image_id: str | None
    model: str
    wait_s: float
    region: Region | None


class SegmentArguments(ImageArguments, OutputArguments, total=False):
    """`ImageArguments` and `OutputArguments`."""


class ManyArguments(ReadingArguments, OutputArguments, total=False):
    """Keyword arguments that hold for many images.

    Attributes:
        model: Name of the model that must have embedded the images; see `segment`.
    """

    model: str


def reading(arguments: ReadingArguments) -> Reading:
    """How to read a picture, with the defaults of what is not given."""
    return Reading(arguments.get("channels", "rgb"), arguments.get("stretch", "auto"))


class AskedImage(NamedTuple):
    """An image as a call asks for it; see `ImageArguments`."""

    image: ImageLike | EmbeddedImage | None
    image_id: str | None = None
    model: str = ""
    wait_ms: int = 0
    reading: Reading = DEFAULT_READING
    region: Literal["auto"] | Place | None = None

    @classmethod
    def of(cls, image: ImageLike | EmbeddedImage | None, arguments: ImageArguments) -> "AskedImage":
        """Checks and converts the arguments of a call."""
        waiting_ms, region = wait_ms(arguments.get("wait_s", 0)), check_region(arguments.get("region"))
        return cls(image, arguments.get("image_id"), arguments.get("model", ""), waiting_ms, reading(arguments), region)


@dataclass
class Wanted:
    """An image as a call names it."""

    image_id: str  # the name to ask the servers for
    stored: EmbeddedImage | None  # what is stored of the image; None where the call gave a name alone
    source: Source | None  # its picture, likewise
    model: str  # the model that must have embedded it; empty for any
    may_be_path: bool = False  # whether the name looks like a file's
    region: EmbeddedImage | None = None  # what is stored of the region that is meant; None for the whole image

    @property
    def content_key(self) -> str:
        """Which image or region it is, whatever its name comes to mean; empty where only the name is known."""
        stored = self.region or self.stored
        return stored.content_key if stored is not None else ""

    def not_found(self, error: ImageNotFound) -> MaskwireError:
        """Makes the error to raise where no such image is stored: for a file's name, that there is no such file."""
        if not self.may_be_path or error.reason != "IMAGE_NOT_FOUND":
            return error
        return InvalidRequest(
            f"no such file: {self.image_id}; nor is an image stored under that name", "NO_SUCH_FILE", "image"
        )


class Connection:
    """One caller's use of the servers."""

    def __init__(self, servers: Servers, caller: Caller) -> None:
        self.servers = servers
        self.caller = caller
        self.images = ImageCache()
        self._pictures = LastPicture()
        self._sessions: weakref.WeakSet[Any] = weakref.WeakSet()

    def __repr__(self) -> str:
        namespace = f", namespace {self.caller.namespace!r}" if self.caller.namespace else ""
        return f"{self.servers!r}{namespace}"

    def closes_with(self, session: Any) -> None:
        """Has `close` close a session too, if it is still in use then."""
        self._sessions.add(session)

    async def close(self) -> None:
        """Closes the sessions, and the connections to the servers."""
        for session in list(self._sessions):
            await session.close()
        await self.servers.close()

    async def embed(
        self,
        source: Source,
        image_id: str | None,
        model: str = "",
        bulk: bool = False,
        keep_source: bool = False,
    ) -> EmbeddedImage:
        """Embeds an image, and remembers it; see `AsyncClient.embed`."""
        header = encoder_pb2.EncodeImageHeader(
            image_id=image_id or "",
            model=model,
            priority=encoder_pb2.PRIORITY_BULK if bulk else encoder_pb2.PRIORITY_INTERACTIVE,
            stretch=STRETCHES[source.stretch],
            keep_source=keep_source,
        )
        identity, stored = await self._upload(header, source)
        self.images.add(identity, image_id, model, source, stored)
        return stored

    async def _upload(self, header: encoder_pb2.EncodeImageHeader, source: Source) -> tuple[Hashable, EmbeddedImage]:
        """Embeds a picture, and returns what it was when it was read, and what is stored of it."""
        identity, data, header.sha256 = await asyncio.to_thread(source.load)
        header.size_bytes = len(data)
        if source.full_size is not None:
            header.width_px, header.height_px = source.full_size
        return identity, await self._encode(header, data)

    async def _encode(self, header: encoder_pb2.EncodeImageHeader, data: bytes) -> EmbeddedImage:
        header.namespace = self.caller.namespace
        with tracing.span("embed"):
            response = await self.servers.encode_image(header, data, self.caller)
        return EmbeddedImage.from_messages(response.image, response.cached, response.timings)

    async def described(self, wanted: Wanted) -> Wanted:
        """Returns an image with what is stored of it, and its picture if this client has seen that."""
        if wanted.stored is None:
            wanted = replace(wanted, stored=await self.ask(wanted, lambda _: self.get(wanted.image_id)))
        return replace(wanted, source=wanted.source or self.images.source(wanted.image_id, wanted.content_key))

    async def with_picture(self, wanted: Wanted) -> Wanted:
        """Returns an image with what is stored of it, and its picture.

        Raises:
            InvalidRequest: NO_PICTURE: this client has not seen the picture.
        """
        wanted = await self.described(wanted)
        if wanted.source is None:
            raise _no_picture(wanted)
        return wanted

    async def embed_tiles(self, image: Wanted) -> None:
        """Embeds the tiles of an image that is stored, with low priority, two at a time."""
        image = await self.with_picture(image)
        assert image.stored is not None
        tiles = tiles_of(image.stored.width, image.stored.height)

        async def work() -> None:
            for tile in tiles:
                await self.of_region(image, tile.place, bulk=True)

        tasks = [asyncio.create_task(work()) for _ in range(_TILES_IN_FLIGHT)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def window_of(self, image: Wanted, place: Place) -> Image.Image:
        """Returns a part of the picture of an image, or a smaller version of it; see `LastPicture.crop`."""
        assert image.source is not None
        return await asyncio.to_thread(self._pictures.crop, image.source, place)

    async def of_region(
        self, wanted: Wanted, place: Place, *, bulk: bool = False, window: Image.Image | None = None, ttl_s: int = 0
    ) -> Wanted:
        """Returns a region of an image, which is embedded unless it is stored: cut out of the picture, or, if this
        client has not seen that, by the encoder out of the file that it has kept.

        Args:
            wanted: The image.
            place: The region.
            bulk: Low priority.
            window: The part of the picture, as `window_of` gives it; None: it is cut out if it is needed.
            ttl_s: Seconds after which an embedding that is made now may expire; 0 for the encoder's own.

        Raises:
            InvalidRequest: NO_PICTURE: this client has not seen the picture, and its file is not kept. BAD_REGION: the
                image is smaller.
        """
        whole = await self.described(wanted)

        async def embed(content_key: str) -> EmbeddedImage:
            return await self._embed_region(whole, content_key, place, bulk, window, ttl_s)

        region = await self.ask(whole, embed)  # which embeds the image again if it is gone
        return replace(whole, region=region)

    async def _embed_region(
        self, whole: Wanted, image: str, place: Place, bulk: bool, window: Image.Image | None, ttl_s: int
    ) -> EmbeddedImage:
        known = self.images.region(image, place)
        if known is not None:
            return replace(known, cached=True)
        assert whole.stored is not None
        if place[2] > whole.stored.width or place[3] > whole.stored.height:
            raise InvalidRequest(
                f"the region ends at {place[2:]}, and the image is {whole.stored.width}x{whole.stored.height} px",
                "BAD_REGION",
                "region",
            )
        left, top, right, bottom = place
        header = encoder_pb2.EncodeImageHeader(
            image_id=whole.image_id,
            model=whole.stored.model,
            priority=encoder_pb2.PRIORITY_BULK if bulk else encoder_pb2.PRIORITY_INTERACTIVE,
            region=types_pb2.Box(x_min_px=left, y_min_px=top, x_max_px=right, y_max_px=bottom),
            region_of=image,
            ttl_s=ttl_s,
        )
        if whole.source is None:
            header.from_source = True
            try:
                stored = await self._encode(header, b"")
            except FailedPrecondition as error:
                raise _no_picture(whole) from error
        else:
            window = window or await self.window_of(whole, place)
            part = await asyncio.to_thread(part_of_picture, window, place)
            _, stored = await self._upload(header, part)
        self.images.add_region(image, place, stored)
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
        self.servers.check()
        if isinstance(image, EmbeddedImage):
            source = self.images.source(image.image_id, image.content_key)
            if source is None:
                raise InvalidRequest(
                    f"{image.image_id!r} is embedded already, and this client has not seen its picture; pass that",
                    "NO_PICTURE",
                    "image",
                )
            return source
        if isinstance(image, Source):
            if reading != DEFAULT_READING:
                raise InvalidRequest(
                    f"{image!r} says itself how it is read; leave stretch and channels out", "BAD_STRETCH", "stretch"
                )
            return image
        if isinstance(image, str) and is_url(image):
            return Source(await asyncio.to_thread(fetch, image), reading)
        return await asyncio.to_thread(Source, image, reading)

    async def resolve(self, asked: AskedImage) -> Wanted:
        """As `resolve_image`, and embeds the region that is asked for."""
        if asked.region == "auto":
            raise InvalidRequest(
                "'auto' is for segment, segment_objects and sessions; give a box", "BAD_REGION", "region"
            )
        wanted = await self.resolve_image(asked)
        return wanted if asked.region is None else await self.of_region(wanted, asked.region)

    async def resolve_image(self, asked: AskedImage) -> Wanted:
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
        if (
            isinstance(image, str)
            and image_id is None
            and not (is_url(image) or await asyncio.to_thread(os.path.exists, image))
        ):
            return Wanted(image, None, None, model, looks_like_a_file(image))
        source = await self.source_of(image, asked.reading)
        stored = self.images.stored(await asyncio.to_thread(source.identify), image_id, model)
        stored = replace(stored, cached=True) if stored else await self.embed(source, image_id, model)
        return Wanted(stored.image_id, stored, source, model)

    async def embed_again(self, wanted: Wanted, error: ImageNotFound) -> str:
        """Embeds an image that the store has lost, by the model that embedded it before, and the region of it that is
        meant. Returns the content key. Raises the error, in the caller's words, where this client does not have its
        picture."""
        source = wanted.source or self.images.source(wanted.image_id, wanted.content_key or None)
        if source is None:
            raise wanted.not_found(error) from error
        model = wanted.model or (wanted.stored.model if wanted.stored else self.images.model(wanted.image_id))
        lost, region = wanted.stored, wanted.region
        wanted.stored, wanted.region = await self.embed(source, wanted.image_id, model), None
        if region is not None and region.region is not None:
            if lost is not None:
                self.images.forget_region(lost.content_key, region.region)
            wanted.region = (await self.of_region(wanted, region.region)).region
        return wanted.content_key

    async def ask(self, wanted: Wanted, send: Callable[[str], Awaitable[T]]) -> T:
        """Calls a server about an image, given its content key; if the store has lost it, embeds it and calls again."""
        for _ in range(EMBEDS):
            try:
                return await send(wanted.content_key)
            except ImageNotFound as error:
                await self.embed_again(wanted, error)
        return await send(wanted.content_key)


def _no_picture(wanted: Wanted) -> InvalidRequest:
    return InvalidRequest(
        f"this needs the picture of {wanted.image_id!r}, which this client has not seen; pass it (a region is also cut "
        "from the file that was kept with keep_source)",
        "NO_PICTURE",
        "image",
    )


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
