"""Sends damaged and random protobuf messages to running servers, as raw bytes."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import grpc
from google.protobuf import empty_pb2
from google.protobuf.message import Message
from maskwire.v1 import decoder_pb2, encoder_pb2, tracker_pb2, types_pb2

from testing.wire import header, picture

from .mutations import mutated, random_message

Outcome = str
_CUT_SHORT = "answered while being written"
FINE = {"INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "OK", _CUT_SHORT}
_TIMEOUT_S = 20


@dataclass(frozen=True)
class Method:
    """A method, and messages of a call that it answers."""

    server: str  # address of a server
    path: str  # what HTTP/2 calls it
    real: Sequence[Message]  # of one type
    answers: type[Message] | None = None  # what a stream of answers consists of; None where there is one answer
    streams: bool = False  # whether it takes a stream
    also_fine: frozenset[str] = frozenset()  # outcomes that are right for it, beside `FINE`


async def send_messages(methods: Sequence[Method], pick: random.Random, calls: int) -> tuple[Counter[str], list[str]]:
    """Makes calls with damaged and random messages, eight at a time. Returns counts of outcomes, and what went
    wrong."""
    senders = Senders(methods, pick)
    outcomes, wrong = Counter[str](), list[str]()

    async def sender(number: int) -> None:
        for _ in range(number, calls, 8):
            method, outcome = await senders.send()
            outcomes[outcome] += 1
            if outcome not in FINE | method.also_fine:
                wrong.append(f"{method.path} answered {outcome}")

    await asyncio.gather(*(sender(number) for number in range(8)))
    await senders.close()
    return outcomes, wrong


class Senders:
    """Sends raw bytes to running servers."""

    def __init__(self, methods: Sequence[Method], pick: random.Random) -> None:
        self._methods = methods
        self._pick = pick
        self._channels = {address: grpc.aio.insecure_channel(address) for address in {one.server for one in methods}}

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close()

    async def send(self) -> tuple[Method, Outcome]:
        """Makes one call. Returns its method and how it ended."""
        method = self._pick.choice(self._methods)
        kind = type(method.real[0])
        raw = [self._bytes(kind, message) for message in method.real]
        more = self._pick.choice((0, 0, 1, 3)) if method.streams else 0
        raw += [self._bytes(kind, self._pick.choice(method.real)) for _ in range(more)]
        channel, outcome = self._channels[method.server], "OK"

        async def requests() -> AsyncIterator[bytes]:
            for message in raw:
                yield message

        try:
            if method.answers is None:
                if method.streams:
                    await channel.stream_unary(method.path)(requests(), timeout=_TIMEOUT_S)
                else:
                    await channel.unary_unary(method.path)(raw[0], timeout=_TIMEOUT_S)
            else:
                answers = (
                    channel.stream_stream(method.path)(requests(), timeout=_TIMEOUT_S)
                    if method.streams
                    else channel.unary_stream(method.path)(raw[0], timeout=_TIMEOUT_S)
                )
                async for answer in answers:
                    outcome = _worse(outcome, _told(method.answers.FromString(answer)))
        except grpc.aio.AioRpcError as error:
            outcome = error.code().name
            if error.details() == "Internal error from Core":  # what grpc says of a write after the server's answer
                outcome = _CUT_SHORT
        return method, outcome

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


def encoder_and_decoder(encoder: str, decoder: str, content_key: str) -> list[Method]:
    """Returns their methods, at these addresses. There is an image named "fuzz", with this content key, whose file is
    kept."""
    data = picture(400)
    upload = encoder_pb2.EncodeImageRequest(header=header(data, image_id="fuzz"))
    several = encoder_pb2.EncodeImagesRequest(request_id="1", header=upload.header)
    place = types_pb2.Box(x_min_px=10, y_min_px=5, x_max_px=50, y_max_px=35)
    region = encoder_pb2.EncodeImageHeader(image_id="fuzz", region=place, region_of=content_key, from_source=True)
    everything = decoder_pb2.GenerateMasksRequest(image_id="fuzz", grid=decoder_pb2.PointGrid(points_per_side=2))
    to_encoder, to_decoder = "/maskwire.v1.EncoderService/", "/maskwire.v1.DecoderService/"
    return [
        Method(decoder, to_decoder + "Segment", [_segment()]),
        Method(decoder, to_decoder + "SegmentStream", conversation(), decoder_pb2.SegmentStreamResponse, streams=True),
        Method(decoder, to_decoder + "GenerateMasks", [everything], decoder_pb2.GenerateMasksResponse),
        Method(
            decoder,
            to_decoder + "GetEmbedding",
            [decoder_pb2.GetEmbeddingRequest(image_id="fuzz")],
            decoder_pb2.GetEmbeddingResponse,
        ),
        Method(encoder, to_encoder + "EncodeImage", [upload, encoder_pb2.EncodeImageRequest(chunk=data)], streams=True),
        Method(
            encoder,
            to_encoder + "EncodeImage",
            [encoder_pb2.EncodeImageRequest(header=region)],
            streams=True,
            also_fine=frozenset({"FAILED_PRECONDITION"}),  # the region of an image whose file is not kept
        ),
        Method(
            encoder,
            to_encoder + "EmbedImage",
            [encoder_pb2.EncodeImageRequest(header=header(data)), encoder_pb2.EncodeImageRequest(chunk=data)],
            encoder_pb2.EmbedImageResponse,
            streams=True,
        ),
        Method(encoder, to_encoder + "EncodeImages", [several], encoder_pb2.EncodeImagesResponse, streams=True),
        Method(encoder, to_encoder + "GetImage", [encoder_pb2.GetImageRequest(image_id="fuzz")]),
        Method(encoder, to_encoder + "DeleteImage", [encoder_pb2.DeleteImageRequest(image_id="x")]),
    ]


def tracker(address: str) -> list[Method]:
    """Returns the methods of a tracker, at this address. There is a clip named "fuzz", of two pictures."""
    service = "/maskwire.v1.TrackerService/"
    described = tracker_pb2.ClipHeader(clip_id="fuzz", frames=2, width_px=60, height_px=40)
    frames = [
        tracker_pb2.UploadClipRequest(frame=tracker_pb2.FramePart(chunk=picture(400 + number), last=True))
        for number in range(2)
    ]
    taken = frozenset({"FAILED_PRECONDITION"})  # another stream has opened the track, or the model has no memory
    return [
        *(
            Method(address, service + "Track", track(of_clip), tracker_pb2.TrackResponse, True, taken)
            for of_clip in (True, False)
        ),
        Method(
            address, service + "UploadClip", [tracker_pb2.UploadClipRequest(header=described), *frames], streams=True
        ),
        Method(address, service + "GetTrack", [tracker_pb2.GetTrackRequest(track_id="fuzz")]),
        Method(address, service + "DeleteTrack", [tracker_pb2.DeleteTrackRequest(track_id="another")]),
        Method(address, service + "DeleteClip", [tracker_pb2.DeleteClipRequest(clip_id="another")]),
    ]


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


def track(of_clip: bool) -> list[Message]:
    """Returns the requests of a Track stream: of the clip "fuzz", or with two frames of its own."""
    opened = tracker_pb2.OpenTrack(hand_over=True)
    frames: list[tracker_pb2.TrackRequest] = []
    if of_clip:
        opened.clip_id = "fuzz"
    else:
        opened.width_px, opened.height_px = 60, 40
        parts = [tracker_pb2.FramePart(chunk=picture(400 + number), last=True) for number in range(2)]
        frames = [tracker_pb2.TrackRequest(frame=tracker_pb2.TrackFrame(part=part)) for part in parts]
    return [
        tracker_pb2.TrackRequest(request_id="1", open=opened),
        *frames,
        clicked("2"),
        tracker_pb2.TrackRequest(request_id="3", follow=tracker_pb2.Follow()),
        tracker_pb2.TrackRequest(request_id="4", stop=empty_pb2.Empty()),
    ]


def clicked(request_id: str) -> tracker_pb2.TrackRequest:
    """A click on an object on the first frame of a track."""
    points = tracker_pb2.TrackPoints(points=[types_pb2.Point(x_px=30, y_px=20, label=1)])
    return tracker_pb2.TrackRequest(
        request_id=request_id, prompt=tracker_pb2.TrackPrompt(object_id="object-1", points=points)
    )


def _told(answer: Message) -> Outcome:
    error = getattr(answer, "error", None)
    if error is None or not answer.HasField("error"):
        return "OK"
    return next(code.name for code in grpc.StatusCode if code.value[0] == error.code)


def _worse(one: Outcome, other: Outcome) -> Outcome:
    return other if one in FINE else one
