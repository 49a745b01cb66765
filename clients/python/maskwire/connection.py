"""What a client and its sessions share: servers, the caller, and the images that were embedded."""

import asyncio
import os
import re
import weakref
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import replace
from typing import Any, TypeVar

from PIL import Image

from maskwire.downloads import fetch, is_url
from maskwire.embedded_image import EmbeddedImage
from maskwire.errors import FailedPrecondition, ImageNotFound, InvalidRequest
from maskwire.image_arguments import AskedImage
from maskwire.image_cache import ImageCache
from maskwire.regions import Place
from maskwire.sources import DEFAULT_READING, STRETCHES, ImageLike, LastPicture, Reading, Source, part_of_picture
from maskwire.tiles import tiles_of
from maskwire.transport import Caller, Servers, tracing
from maskwire.transport.calls import EMBEDS
from maskwire.v1 import encoder_pb2, types_pb2
from maskwire.wanted_image import Wanted, looks_like_a_file, no_picture

T = TypeVar("T")

_TILES_IN_FLIGHT = 2


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
            raise no_picture(wanted)
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
                raise no_picture(whole) from error
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


def in_callers_words(error: InvalidRequest) -> InvalidRequest:
    """An error about the only prompt of a request, with the argument of `segment` as its field."""
    field = error.field.removeprefix("prompts[0].")
    if field == error.field:
        return error
    field = re.sub(r"^points\[(\d+)\]\.label$", r"labels[\1]", field)
    field = re.sub(r"^(points\[\d+\]|box|mask)[._].*$", r"\1", field)
    return type(error)(error.message, error.reason, field, error.retry_after_s)
