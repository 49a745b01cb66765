"""One call of GenerateMasks, with the crops that it needs."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from maskwire.automatic_masks import Collection, EverythingArguments, Update, request_of
from maskwire.connection import Connection
from maskwire.errors import DeadlineExceeded, ImageNotFound, OutputMissing, ServerUnavailable, from_rpc
from maskwire.prompts import wait_ms
from maskwire.results import EmbeddedImage
from maskwire.sources import DEFAULT_READING, ImageLike, Reading, Source
from maskwire.transport.calls import retrying
from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import decoder_pb2_grpc

_MAX_STARTS = 3
_CROP_WAIT_MS = 60_000
_EMBEDS_IN_FLIGHT = 2


async def generate(
    connection: Connection,
    image: ImageLike | EmbeddedImage | None,
    image_id: str | None,
    model: str,
    wait_s: float,
    arguments: EverythingArguments,
    reading: Reading = DEFAULT_READING,
) -> AsyncIterator[Update]:
    """See `AsyncClient.generate_masks`."""
    waiting = wait_ms(wait_s)
    wanted = await connection.resolve(image, image_id, model, reading)
    name, source = wanted.image_id, wanted.source
    try:
        stored = wanted.stored or await connection.get(name)
    except ImageNotFound as error:
        again = await connection.embed_again(wanted)
        if again is None:
            raise wanted.missing(error) from error
        stored = again
    request = request_of(stored.width, stored.height, arguments)
    request.image_id, request.namespace, request.wait_ms = name, connection.namespace, waiting
    request.content_key, request.model = stored.content_key, model
    source = source or connection.memory.source(name, stored.content_key)
    if request.crops:
        if source is None:
            raise OutputMissing(
                f"crops need the picture of {name!r}, which this client has not seen; pass it", "NO_PICTURE", "image"
            )
        request.wait_ms = _CROP_WAIT_MS
        for crop in request.crops:
            box = crop.box
            place = f"{box.x_min_px:.0f}-{box.y_min_px:.0f}-{box.x_max_px:.0f}-{box.y_max_px:.0f}"
            crop.image_id = f"crop-{stored.content_key}-{place}"  # another image under this name has other crops
    crops = asyncio.ensure_future(_embed_crops(connection, request, source, stored.model))
    starts = 0
    try:
        while True:
            starts += 1
            try:
                collection = Collection()
                async for response in responses(connection, request, crops):
                    yield collection.add(response)
                return
            except ImageNotFound:
                again = await connection.embed_again(wanted) if starts < _MAX_STARTS else None
                if again is None:
                    raise
                request.content_key = again.content_key
            except ServerUnavailable:
                if starts >= _MAX_STARTS:
                    raise
    finally:
        crops.cancel()


async def _embed_crops(
    connection: Connection, request: pb.GenerateMasksRequest, source: Source | None, model: str
) -> None:
    """Embeds all crops while the decoder is at work on the whole image, in the order in which it wants them."""
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


async def responses(
    connection: Connection, request: pb.GenerateMasksRequest, crops: "asyncio.Future[None] | None" = None
) -> AsyncIterator[pb.GenerateMasksResponse]:
    """The responses of one call, which is retried until the first of them is there. It ends early with an error of the
    crops, which somebody embeds meanwhile.

    Raises:
        MaskwireError: As `AsyncClient.segment`.
    """

    async def attempt(channel: grpc.aio.Channel, left_s: float) -> tuple[Any, Any]:
        stub: decoder_pb2_grpc.DecoderServiceAsyncStub = decoder_pb2_grpc.DecoderServiceStub(channel)
        call: Any = stub.GenerateMasks(request)
        try:
            async with asyncio.timeout(left_s):
                return call, await call.read()
        except BaseException:
            call.cancel()
            raise

    call, response = await retrying(
        connection.decoders, request.image_id, attempt, connection.timeout_s, connection.retry_s
    )
    try:
        while response is not grpc.aio.EOF:
            yield response
            connection.check()
            async with asyncio.timeout(connection.timeout_s):
                reading = asyncio.ensure_future(call.read())
                if crops is not None:
                    await asyncio.wait({reading, crops}, return_when=asyncio.FIRST_COMPLETED)
                    if crops.done():
                        crops.result()
                response = await reading
    except TimeoutError as error:
        raise DeadlineExceeded(f"the decoder sent nothing for {connection.timeout_s:g} s") from error
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error, "decoder") from error
    finally:
        call.cancel()
