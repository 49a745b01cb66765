"""Attacks by what is asked for: embeddings and decoders that nobody reads, names that nobody has, and long lists."""

import asyncio
import itertools
import os
from collections.abc import Awaitable, Callable
from typing import Any

from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import decoder_pb2_grpc, encoder_pb2, encoder_pb2_grpc, types_pb2
from maskwire_core.models.decoder_bundle import GRAPHS

from testing.wire import frames, picture

from .kinds import Outcomes, Target, again_and_again, attack, connected, crowd

_unique = itertools.count(int.from_bytes(os.urandom(4), "big"))


async def _unread(target: Target, count: int, call: Callable[[Any], Any], address: str) -> Outcomes:
    """Makes calls whose answers nobody reads."""

    async def one() -> None:
        async with connected(address) as channel:
            call(channel)
            await asyncio.sleep(target.seconds)

    return await crowd((one() for _ in range(count)), target.seconds)


@attack("embeddings not read", "200 GetEmbedding calls on as many connections that read nothing", token=True)
async def unread_embeddings(target: Target) -> Outcomes:
    request = pb.GetEmbeddingRequest(image_id=target.image_id, codec="fp32")
    return await _unread(
        target,
        200,
        lambda channel: decoder_pb2_grpc.DecoderServiceStub(channel).GetEmbedding(request, metadata=target.metadata),
        target.decoder,
    )


@attack("decoders not read", "200 GetDecoder calls on as many connections that read nothing", token=True)
async def unread_decoders(target: Target) -> Outcomes:
    async with connected(target.encoder) as channel:
        stub: encoder_pb2_grpc.EncoderServiceAsyncStub = encoder_pb2_grpc.EncoderServiceStub(channel)
        found = await stub.ListModels(encoder_pb2.ListModelsRequest(), metadata=target.metadata)
    request = pb.GetDecoderRequest(decoder=found.models[0].decoder, graphs=sorted(GRAPHS))
    return await _unread(
        target,
        200,
        lambda channel: decoder_pb2_grpc.DecoderServiceStub(channel).GetDecoder(request, metadata=target.metadata),
        target.decoder,
    )


@attack("embedded and not read", "40 EmbedImage calls of new images that read nothing", token=True)
async def unread_embedding(target: Target) -> Outcomes:
    return await _unread(
        target,
        40,
        lambda channel: encoder_pb2_grpc.EncoderServiceStub(channel).EmbedImage(
            frames(picture(next(_unique)), 1 << 20), metadata=target.metadata
        ),
        target.encoder,
    )


@attack("regions without number", "20 callers that embed ever new regions of one image", token=True)
async def regions(target: Target) -> Outcomes:
    async with connected(target.encoder) as channel:
        stub: encoder_pb2_grpc.EncoderServiceAsyncStub = encoder_pb2_grpc.EncoderServiceStub(channel)
        whole = await stub.GetImage(encoder_pb2.GetImageRequest(image_id=target.large_id), metadata=target.metadata)

        async def call() -> None:
            number = next(_unique)
            x, y = number % 2900, number // 2900 % 2900
            box = types_pb2.Box(x_min_px=x, y_min_px=y, x_max_px=x + 60, y_max_px=y + 40)
            sent = frames(picture(number), 1 << 20, region_of=whole.image.content_key, region=box)
            await stub.EncodeImage(sent, timeout=30, metadata=target.metadata)

        return await again_and_again(call, 20, target.seconds)


@attack("names that nobody has", "40 callers that ask an encoder and a decoder for ever new names", token=True)
async def missing_names(target: Target) -> Outcomes:
    async with connected(target.encoder) as to_encoder, connected(target.decoder) as to_decoder:
        encoder: encoder_pb2_grpc.EncoderServiceAsyncStub = encoder_pb2_grpc.EncoderServiceStub(to_encoder)
        decoder: decoder_pb2_grpc.DecoderServiceAsyncStub = decoder_pb2_grpc.DecoderServiceStub(to_decoder)

        def call() -> Awaitable[Any]:
            number = next(_unique)
            name = f"nobody's {number}"
            if number % 2:
                request = encoder_pb2.GetImageRequest(image_id=name)
                return encoder.GetImage(request, timeout=30, metadata=target.metadata)
            return decoder.Segment(pb.SegmentRequest(image_id=name), timeout=30, metadata=target.metadata)

        return await again_and_again(call, 40, target.seconds)


@attack("lists", "40 callers that list images, 1,000 a page, one page after another", token=True)
async def lists(target: Target) -> Outcomes:
    async with connected(target.encoder) as channel:
        stub: encoder_pb2_grpc.EncoderServiceAsyncStub = encoder_pb2_grpc.EncoderServiceStub(channel)
        request = encoder_pb2.ListImagesRequest(page_size=1000)
        return await again_and_again(
            lambda: stub.ListImages(request, timeout=30, metadata=target.metadata), 40, target.seconds
        )
