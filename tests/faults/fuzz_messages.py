"""Sends damaged and random protobuf messages to running servers, as raw bytes."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator

import grpc
from google.protobuf.message import Message
from maskwire.v1 import decoder_pb2, encoder_pb2, types_pb2

from testing.wire import header, picture

from .mutations import mutated, random_message
from .world import World

Outcome = str
_CUT_SHORT = "answered while being written"
FINE = {"INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "OK", _CUT_SHORT}


async def send_messages(world: World, pick: random.Random, calls: int) -> tuple[Counter[str], list[str]]:
    senders = Senders(world, pick)
    outcomes, wrong = Counter[str](), list[str]()

    async def sender(number: int) -> None:
        for _ in range(number, calls, 8):
            name, outcome = await senders.send()
            outcomes[outcome] += 1
            if outcome not in FINE:
                wrong.append(f"{name} answered {outcome}")

    await asyncio.gather(*(sender(number) for number in range(8)))
    await senders.close()
    return outcomes, wrong


class Senders:
    """Sends raw bytes to running servers.

    Args:
        world: A cluster with an image named "fuzz".
    """

    def __init__(self, world: World, pick: random.Random) -> None:
        self._pick = pick
        self._encoder = grpc.aio.insecure_channel(world.encoders[0].address)
        self._decoder = grpc.aio.insecure_channel(world.decoders[0].address)
        data = picture(400)
        upload = encoder_pb2.EncodeImageRequest(header=header(data, image_id="fuzz"))
        everything = decoder_pb2.GenerateMasksRequest(image_id="fuzz", grid=decoder_pb2.PointGrid(points_per_side=2))
        self._kinds: list[tuple[str, type[Message], list[Message], bool]] = [
            ("Segment", decoder_pb2.SegmentRequest, [_segment()], False),
            ("SegmentStream", decoder_pb2.SegmentStreamRequest, conversation(), True),
            (
                "GenerateMasks",
                decoder_pb2.GenerateMasksRequest,
                [everything],
                False,
            ),
            (
                "GetEmbedding",
                decoder_pb2.GetEmbeddingRequest,
                [decoder_pb2.GetEmbeddingRequest(image_id="fuzz")],
                False,
            ),
            ("EncodeImage", encoder_pb2.EncodeImageRequest, [upload, encoder_pb2.EncodeImageRequest(chunk=data)], True),
            (
                "EmbedImage",
                encoder_pb2.EncodeImageRequest,
                [encoder_pb2.EncodeImageRequest(header=header(data)), encoder_pb2.EncodeImageRequest(chunk=data)],
                True,
            ),
            (
                "EncodeImages",
                encoder_pb2.EncodeImagesRequest,
                [encoder_pb2.EncodeImagesRequest(request_id="1", header=upload.header)],
                True,
            ),
            ("GetImage", encoder_pb2.GetImageRequest, [encoder_pb2.GetImageRequest(image_id="fuzz")], False),
            ("DeleteImage", encoder_pb2.DeleteImageRequest, [encoder_pb2.DeleteImageRequest(image_id="x")], False),
        ]

    async def close(self) -> None:
        await self._encoder.close()
        await self._decoder.close()

    async def send(self) -> tuple[str, Outcome]:
        """Makes one call. Returns its method and how it ended."""
        name, kind, real, streams = self._pick.choice(self._kinds)
        raw = [self._bytes(kind, message) for message in real]
        more = self._pick.choice((0, 0, 1, 3)) if streams else 0
        raw += [self._bytes(kind, self._pick.choice(real)) for _ in range(more)]
        service = "EncoderService" if kind.DESCRIPTOR.file.name.endswith("encoder.proto") else "DecoderService"
        channel = self._encoder if service == "EncoderService" else self._decoder
        path = f"/maskwire.v1.{service}/{name}"
        timeout = 20
        outcome = "OK"

        async def requests() -> AsyncIterator[bytes]:
            for message in raw:
                yield message

        try:
            if name in ("SegmentStream", "EncodeImages", "EmbedImage"):
                async for response in channel.stream_stream(path)(requests(), timeout=timeout):
                    outcome = _worse(outcome, _told(name, response))
            elif name in ("GenerateMasks", "GetEmbedding"):
                async for _ in channel.unary_stream(path)(raw[0], timeout=timeout):
                    pass
            elif streams:
                await channel.stream_unary(path)(requests(), timeout=timeout)
            else:
                await channel.unary_unary(path)(raw[0], timeout=timeout)
        except grpc.aio.AioRpcError as error:
            outcome = error.code().name
            if error.details() == "Internal error from Core":  # what grpc says of a write after the server's answer
                outcome = _CUT_SHORT
        return name, outcome

    def _bytes(self, kind: type[Message], real: Message) -> bytes:
        way = self._pick.random()
        if way < 0.4:
            return mutated(self._pick, real.SerializeToString())
        if way < 0.5:
            return self._pick.randbytes(self._pick.randrange(200))
        message = kind()
        if way < 0.75:
            message.CopyFrom(real)
        random_message(self._pick, message)
        return message.SerializeToString()


def _segment() -> decoder_pb2.SegmentRequest:
    prompt = types_pb2.Prompt(
        points=[types_pb2.Point(x_px=30, y_px=20, label=1)], box=types_pb2.Box(x_max_px=50, y_max_px=35)
    )
    return decoder_pb2.SegmentRequest(image_id="fuzz", prompts=[prompt])


def conversation() -> list[Message]:
    steps = [
        types_pb2.Step(add_point=types_pb2.Point(x_px=30, y_px=20)),
        types_pb2.Step(set_box=types_pb2.Box(x_max_px=50, y_max_px=35)),
    ]
    edited = decoder_pb2.StreamPrompts(prompts=[types_pb2.Prompt(prompt_id="object-1", steps=steps)])
    return [
        decoder_pb2.SegmentStreamRequest(request_id="1", set_image=decoder_pb2.SetImage(image_id="fuzz")),
        decoder_pb2.SegmentStreamRequest(request_id="2", segment=edited),
        decoder_pb2.SegmentStreamRequest(
            request_id="3", segment=decoder_pb2.StreamPrompts(prompts=_segment().prompts), speculative=True
        ),
    ]


def _told(name: str, response: bytes) -> Outcome:
    if name == "EmbedImage":
        return "OK"
    kind = decoder_pb2.SegmentStreamResponse if name == "SegmentStream" else encoder_pb2.EncodeImagesResponse
    answer = kind.FromString(response)
    if not answer.HasField("error"):
        return "OK"
    return next(code.name for code in grpc.StatusCode if code.value[0] == answer.error.code)


def _worse(one: Outcome, other: Outcome) -> Outcome:
    return other if one in FINE else one
