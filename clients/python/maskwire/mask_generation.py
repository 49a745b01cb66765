"""Calls GenerateMasks, and embeds the crops that it needs."""

import asyncio
from collections.abc import AsyncIterator
from os import PathLike
from pathlib import Path

from maskwire.automatic_masks import AutomaticMaskArguments, MaskCollector, Update, make_request
from maskwire.connection import Connection
from maskwire.embedded_image import EmbeddedImage
from maskwire.errors import ImageNotFound, InvalidRequest, OutputMissing, ServerUnavailable
from maskwire.image_arguments import AskedImage, ImageArguments
from maskwire.sources import ImageLike, Source
from maskwire.tile_generation import generate_over_tiles
from maskwire.tile_journal import TileJournal
from maskwire.tiles import SIDE_PX
from maskwire.transport.losses import Losses
from maskwire.v1 import decoder_pb2 as pb
from maskwire.wanted_image import Wanted

_MAX_STARTS = 3
_CROP_WAIT_MS = 60_000
_EMBEDS_IN_FLIGHT = 2
_LEAST_TILE_PX = 128


class GenerationArguments(ImageArguments, AutomaticMaskArguments, total=False):
    """`ImageArguments`, `AutomaticMaskArguments`, and what is for large pictures.

    Attributes:
        tiles: Look at the picture tile by tile, at several scales, and join what is found; False. Each tile is clicked
            as densely as an image is without. docs/how-to/large-pictures.md has the rules.
        tile_px: With `tiles`, the side of the smallest tiles in pixels; 1024. Smaller ones find smaller objects.
        journal: With `tiles`, a file in which each tile is entered when it is done: a call with the same arguments and
            this file goes on where another one ended, even if it was killed.
    """

    tiles: bool
    tile_px: int | None
    journal: str | PathLike[str] | None


async def generate_masks(
    connection: Connection, image: ImageLike | EmbeddedImage | None, arguments: GenerationArguments
) -> AsyncIterator[Update]:
    """Yields the masks of an image as they are found; see `AsyncClient.generate_masks`."""
    asked = AskedImage.of(image, arguments)
    if not arguments.get("tiles"):
        if arguments.get("journal") is not None:
            raise InvalidRequest("a journal is of tiles; give tiles=True, too", "BAD_JOURNAL", "journal")
        if arguments.get("tile_px") is not None:
            raise InvalidRequest("tile_px is of tiles; give tiles=True, too", "BAD_PARAMETER", "tile_px")
        async for update in _generate(connection, await connection.resolve(asked), asked.wait_ms, arguments):
            yield update
        return
    if asked.region is not None:
        raise InvalidRequest("tiles are of the whole image; leave one of them out", "BAD_REGION", "region")
    tile_px = arguments.get("tile_px") or SIDE_PX
    if not isinstance(tile_px, int) or tile_px < _LEAST_TILE_PX:
        raise InvalidRequest(f"tile_px is {tile_px}; give at least {_LEAST_TILE_PX}", "BAD_PARAMETER", "tile_px")
    whole = await connection.with_picture(await connection.resolve_image(asked))
    assert whole.stored is not None
    parameters = AutomaticMaskArguments(
        **{name: arguments[name] for name in AutomaticMaskArguments.__annotations__ if name in arguments}  # type: ignore
    )
    path = arguments.get("journal")
    job = {
        "content_key": whole.stored.content_key,
        "tile_px": tile_px,
        "parameters": {k: v for k, v in parameters.items() if v is not None},
    }
    journal = await asyncio.to_thread(TileJournal, None if path is None else Path(path), job)

    def generate(part: Wanted, of_tile: AutomaticMaskArguments) -> AsyncIterator[Update]:
        return _generate(connection, part, asked.wait_ms, of_tile)

    async for update in generate_over_tiles(connection, whole, parameters, tile_px, generate, journal):
        yield update


async def _generate(
    connection: Connection, wanted: Wanted, wait_ms: int, arguments: AutomaticMaskArguments
) -> AsyncIterator[Update]:
    """Yields the masks of an image or a region."""
    name, source = wanted.image_id, wanted.source
    stored = wanted.stored
    if stored is None:
        stored = await connection.ask(wanted, lambda _: connection.get(name))
    request = make_request(stored.width, stored.height, arguments)
    request.image_id, request.namespace, request.wait_ms = name, connection.caller.namespace, wait_ms
    request.content_key, request.model = wanted.content_key or stored.content_key, wanted.model
    source = source or connection.images.source(name, stored.content_key)
    if request.crops and wanted.region is not None:
        raise InvalidRequest("crops are of the whole image; leave crop_n_layers or region out", "BAD_REGION", "region")
    if request.crops:
        if source is None:
            raise OutputMissing(
                f"crops need the picture of {name!r}, which this client has not seen; pass it", "NO_PICTURE", "image"
            )
        request.wait_ms = _CROP_WAIT_MS
        for crop in request.crops:
            box = crop.box
            place = f"{box.x_min_px:.0f}-{box.y_min_px:.0f}-{box.x_max_px:.0f}-{box.y_max_px:.0f}"
            crop.image_id = f"crop-{stored.content_key}-{place}"  # not named after the image, whose name can be reused
    crops = asyncio.ensure_future(_embed_crops(connection, request, source, stored.model))
    starts, losses = 0, Losses()
    try:
        while True:
            starts += 1
            try:
                collector = MaskCollector(stored.size)
                async for response in connection.servers.generate_masks(request, connection.caller, crops, losses):
                    yield collector.add(response)
                return
            except ImageNotFound as error:
                if starts >= _MAX_STARTS:
                    raise
                request.content_key = await connection.embed_again(wanted, error)
            except ServerUnavailable:
                if starts >= _MAX_STARTS or losses.too_many:
                    raise
    finally:
        crops.cancel()


async def _embed_crops(
    connection: Connection, request: pb.GenerateMasksRequest, source: Source | None, model: str
) -> None:
    """Embeds the crops, in the order in which the decoder needs them, while it works on the whole image."""
    if source is None or not request.crops:
        return
    picture = await asyncio.to_thread(source.picture)
    free = asyncio.Semaphore(_EMBEDS_IN_FLIGHT)

    async def embed(crop: pb.ImageCrop) -> None:
        async with free:
            part = picture.crop((crop.box.x_min_px, crop.box.y_min_px, crop.box.x_max_px, crop.box.y_max_px))
            await connection.embed(await asyncio.to_thread(Source, part), crop.image_id, model)

    tasks = [asyncio.create_task(embed(crop)) for crop in request.crops]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
