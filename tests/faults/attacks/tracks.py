"""Attacks on the tracker: frames that come in small pieces or not at all, and answers that nobody reads."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable

from maskwire.v1 import tracker_pb2 as pb
from maskwire.v1 import tracker_pb2_grpc, types_pb2

from testing.wire import picture

from .kinds import Outcomes, Target, attack, connected, crowd, said, until_the_end

MIB = 1 << 20
_SIZE = {"width_px": 60, "height_px": 40}
_CLIP = pb.UploadClipRequest(header=pb.ClipHeader(frames=1000, fps=25, **_SIZE))
_OPEN = pb.TrackRequest(open=pb.OpenTrack(hand_over=True, kept_frames=64, **_SIZE))


def _clip_part(data: bytes, last: bool = False) -> pb.UploadClipRequest:
    return pb.UploadClipRequest(frame=pb.FramePart(chunk=data, last=last))


def _track_part(data: bytes, last: bool = False) -> pb.TrackRequest:
    return pb.TrackRequest(frame=pb.TrackFrame(part=pb.FramePart(chunk=data, last=last)))


async def _upload(target: Target, count: int, parts: Callable[[], Iterable[pb.UploadClipRequest]]) -> Outcomes:
    """Uploads clips at once, each on a connection of its own, and keeps them open."""

    async def sent() -> AsyncIterator[pb.UploadClipRequest]:
        yield _CLIP
        for part in parts():
            yield part
        await asyncio.sleep(target.seconds)

    async def one() -> None:
        async with connected(target.tracker) as channel:
            stub: tracker_pb2_grpc.TrackerServiceAsyncStub = tracker_pb2_grpc.TrackerServiceStub(channel)
            await stub.UploadClip(sent(), metadata=target.metadata)

    return await crowd((one() for _ in range(count)), target.seconds)


async def _track(
    target: Target, count: int, requests: Callable[[], Iterable[pb.TrackRequest]], reads: bool
) -> Outcomes:
    """Opens tracks at once, each on a connection of its own, sends requests and counts the answers."""

    async def one() -> Outcomes:
        outcomes = Outcomes()

        async def sent() -> AsyncIterator[pb.TrackRequest]:
            yield _OPEN
            for request in requests():
                yield request
                outcomes["sent"] += 1
            await asyncio.sleep(target.seconds)

        async def stream() -> None:
            async with connected(target.tracker) as channel:
                stub: tracker_pb2_grpc.TrackerServiceAsyncStub = tracker_pb2_grpc.TrackerServiceStub(channel)
                call = stub.Track(sent(), metadata=target.metadata)
                if not reads:
                    await asyncio.sleep(target.seconds)
                async for answer in call:
                    outcomes[str(answer.WhichOneof("outcome"))] += 1

        return await until_the_end(stream(), target.seconds, outcomes)

    total = Outcomes()
    for each in await asyncio.gather(*(one() for _ in range(count)), return_exceptions=True):
        total += each if isinstance(each, Counter) else Outcomes([said(each)])
    return total


@attack("clips in small pieces", "8 UploadClip calls that send a frame of 16 MiB a byte at a time", token=True)
async def clips_in_pieces(target: Target) -> Outcomes:
    return await _upload(target, 8, lambda: itertools.repeat(_clip_part(b"x"), 16 * MIB))


@attack("clips begun", "20 UploadClip calls that send most of a frame of 16 MiB and then nothing", token=True)
async def clips_begun(target: Target) -> Outcomes:
    part = _clip_part(bytes(3 * MIB))
    return await _upload(target, 20, lambda: itertools.repeat(part, 5))


@attack("frames in small pieces", "8 Track streams that send a frame of 16 MiB a byte at a time", token=True)
async def frames_in_pieces(target: Target) -> Outcomes:
    return await _track(target, 8, lambda: itertools.repeat(_track_part(b"x"), 16 * MIB), reads=True)


@attack(
    "frames that are kept", "30 Track streams that send 64 frames of 15 MiB each, all of which are kept", token=True
)
async def kept_frames(target: Target) -> Outcomes:
    frame = [_track_part(bytes(3 * MIB), last=number == 4) for number in range(5)]
    return await _track(target, 30, lambda: frame * 64, reads=True)


@attack("tracks that are not read", "30 Track streams that follow 64 objects each and read nothing", token=True)
async def unread_tracks(target: Target) -> Outcomes:
    frames = [_track_part(picture(number), last=True) for number in range(16)]

    def requests() -> Iterable[pb.TrackRequest]:
        yield from frames
        for number in range(64):
            points = pb.TrackPoints(points=[types_pb2.Point(x_px=number % 60, y_px=number % 40, label=1)])
            yield pb.TrackRequest(prompt=pb.TrackPrompt(object_id=str(number), frame=15, points=points))
        while True:
            yield pb.TrackRequest(follow=pb.Follow())

    return await _track(target, 30, requests, reads=False)
