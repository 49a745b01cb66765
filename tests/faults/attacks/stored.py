"""Attacks on what is stored: by asking for what was deleted, and by writing what no encoder wrote."""

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import onnx
from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import decoder_pb2_grpc, encoder_pb2, encoder_pb2_grpc, types_pb2
from maskwire_core.models.decoder_bundle import GRAPHS, DecoderBundle
from maskwire_core.models.graph_archive import OnnxGraph
from maskwire_core.storage import keys
from maskwire_core.storage.embedding import pack
from maskwire_core.storage.exports import get_decoder, publish_decoder
from maskwire_core.storage.store import Store
from onnx import TensorProto, helper

from testing.wire import described, frames, picture

from .kinds import Outcomes, Target, attack, connected, said

_SEEN_S = 1.0  # within which every decoder forgets what was deleted
_PLACES = ("/etc/hostname", "secret.txt", "../secret.txt", "*/_ORT_MEM_ADDR_/*")
_unique = itertools.count(int.from_bytes(os.urandom(4), "big"))


@attack(
    "images that were deleted",
    "a second after an image and its embedding, asks for them by content key, by name, on its stream and by its logits",
    token=True,
    before="answered by content key",
    refused=True,
)
async def deleted(target: Target) -> Outcomes:
    outcomes, end = Outcomes(), time.monotonic() + target.seconds
    async with connected(target.encoder) as to_encoder, connected(target.decoder) as to_decoder:
        encoder: encoder_pb2_grpc.EncoderServiceAsyncStub = encoder_pb2_grpc.EncoderServiceStub(to_encoder)
        decoder: decoder_pb2_grpc.DecoderServiceAsyncStub = decoder_pb2_grpc.DecoderServiceStub(to_decoder)
        prompts = [types_pb2.Prompt(prompt_id="one", points=[types_pb2.Point(x_px=3, y_px=3)])]
        while not outcomes or time.monotonic() < end:
            name = f"gone {next(_unique)}"
            stored = await encoder.EncodeImage(
                frames(picture(next(_unique)), image_id=name), timeout=30, metadata=target.metadata
            )
            key = stored.image.content_key
            requests: asyncio.Queue[pb.SegmentStreamRequest | None] = asyncio.Queue()
            stream = decoder.SegmentStream(_taken(requests), metadata=target.metadata)
            requests.put_nowait(pb.SegmentStreamRequest(set_image=pb.SetImage(image_id=name)))
            assert (await _read(stream)).HasField("image_ready")
            kept = pb.SegmentRequest(image_id=name, prompts=prompts, save_logits=True)
            await decoder.Segment(kept, timeout=30, metadata=target.metadata)

            gone = encoder_pb2.DeleteImageRequest(image_id=name, delete_embedding=True)
            await encoder.DeleteImage(gone, timeout=30, metadata=target.metadata)
            await asyncio.sleep(_SEEN_S)
            for request in (
                pb.SegmentRequest(image_id=name, content_key=key, prompts=prompts),
                pb.SegmentRequest(image_id=name, prompts=prompts),
                pb.SegmentRequest(image_id=name, content_key=key, prompts=prompts, load_logits=True),
            ):
                outcomes[await _told(decoder.Segment(request, timeout=30, metadata=target.metadata))] += 1
            requests.put_nowait(pb.SegmentStreamRequest(segment=pb.StreamPrompts(prompts=prompts)))
            answer = await _read(stream)
            outcomes[f"stream: {described(answer.error)[0]}" if answer.HasField("error") else "OK"] += 1
            requests.put_nowait(None)
            stream.cancel()
    return outcomes


async def _taken(requests: asyncio.Queue[Any]) -> AsyncIterator[Any]:
    while (request := await requests.get()) is not None:
        yield request


async def _read(stream: Any) -> pb.SegmentStreamResponse:
    answer = await stream.read()
    assert isinstance(answer, pb.SegmentStreamResponse)
    return answer


async def _told(call: Awaitable[Any]) -> str:
    try:
        return said(await call)
    except grpc.aio.AioRpcError as error:
        return said(error)


@attack(
    "graphs that read files",
    "writes decoders whose constants are in files of the decoder's machine, or in its memory, and one that has not the "
    "digest of its name, and images for them",
    token=True,
    by="who writes to the store",
    before="ONNX Runtime reads the files",
    refused=True,
)
async def foreign_graphs(target: Target) -> Outcomes:
    outcomes, end = Outcomes(), time.monotonic() + target.seconds
    async with connected(target.decoder) as channel:
        decoder: decoder_pb2_grpc.DecoderServiceAsyncStub = decoder_pb2_grpc.DecoderServiceStub(channel)
        with contextlib.closing(Store(target.store)) as store:
            while not outcomes or time.monotonic() < end:
                for place in (*_PLACES, ""):
                    name = await asyncio.to_thread(_written, store, target, place)
                    request = pb.SegmentRequest(
                        image_id=name, prompts=[types_pb2.Prompt(box=types_pb2.Box(x_max_px=9))]
                    )
                    outcomes[await _told(decoder.Segment(request, timeout=30, metadata=target.metadata))] += 1
                await asyncio.sleep(0.1)
    return outcomes


def _written(store: Store, target: Target, place: str) -> str:
    """Writes an image whose decoder reads a file, or whose decoder was changed under its name. Returns its name."""
    number = next(_unique)
    name, key = f"foreign {number}", f"{number:064x}"
    known = store.get_alias(target.namespace, target.image_id)
    assert known is not None
    embedding = store.get_embedding(target.namespace, known)
    assert embedding is not None
    bundle = get_decoder(store, embedding.header.decoder)
    assert bundle is not None
    if place:
        graph = OnnxGraph(_reading(place, f"w{number}"), ())
        bundle = DecoderBundle(bundle.config, dict.fromkeys(GRAPHS, graph), {})
        publish_decoder(store, bundle)
        digest = bundle.digest
    else:
        digest = f"{number:064x}"
        with store.connections.commands() as client:
            client.set(keys.decoder(digest), bundle.packed)
    header = replace(embedding.header, content_key=key, decoder=digest)
    tensors = {part: np.asarray(values, np.float32) for part, values in embedding.tensors.items()}
    store.put_embedding(target.namespace, key, pack(header, tensors), 60)
    store.set_alias(target.namespace, name, key, 60)
    return name


def _reading(place: str, name: str) -> bytes:
    """A graph whose only constant is the beginning of a file."""
    tensor = TensorProto(name=name, dims=[4], data_type=TensorProto.UINT8, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", place), ("offset", "0"), ("length", "4")):
        tensor.external_data.add(key=key, value=value)
    out = helper.make_tensor_value_info("o", TensorProto.UINT8, [4])
    graph = helper.make_graph([helper.make_node("Identity", [name], ["o"])], "g", [], [out], [tensor])
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    return model.SerializeToString()
