"""Attacks by masks as prompts: run lengths that are none, or are another mask's, and far too many of them."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator

from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import decoder_pb2_grpc, tracker_pb2, tracker_pb2_grpc, types_pb2

from testing.coco_runs import wrapping, written
from testing.wire import picture

from .kinds import Outcomes, Target, again_and_again, attack, connected, said, until_the_end

_WIDTH, _HEIGHT = 60, 40  # of the attacker's image
_MOST = 1 << 20  # characters that a mask may have
_AT_ONCE = 8
_HUGE = (1 << 32) - 1


def _wrong_runs() -> list[types_pb2.Rle]:
    """Returns masks of which none is one of 60 x 40 pixels."""
    size, area = (_HEIGHT, _WIDTH), _HEIGHT * _WIDTH
    counts = [
        wrapping(area),
        written(area + 1),
        written(area) + written(area),  # twice the image
        *(written(_HUGE) * times for times in (1, 2, 1000)),
        written(-area),
        written(1) * _MOST,
        "0" * _MOST,
        "0" * 2 * _MOST,
        "o" * _MOST,  # one number without an end
        "o" * 8 + "0",
        written(area)[:-1],
        "",
        "\0\x7fé",
    ]
    sizes = [(), (_HEIGHT,), (_WIDTH, _HEIGHT), (0, 0), (_HUGE, _HUGE), (1 << 16, 1 << 16), size * (_MOST // 8)]
    return [
        *(types_pb2.Rle(size=size, counts=each) for each in counts),
        *(types_pb2.Rle(size=each, counts=written(area)) for each in sizes),
    ]


def _wrong_logits() -> list[types_pb2.Logits]:
    """Returns logits of which none is a mask of any model's size."""
    fp32, fp16 = types_pb2.DATA_TYPE_FP32, types_pb2.DATA_TYPE_FP16
    return [
        types_pb2.Logits(height=_HUGE, width=_HUGE, data_type=fp32),
        types_pb2.Logits(height=1 << 16, width=1 << 16, data_type=fp16, data=b"1234"),
        types_pb2.Logits(data_type=fp32, data=bytes(_MOST)),
        *(
            types_pb2.Logits(height=side, width=side, data_type=fp32, data=b"\xff" * (4 * side * side))  # NaN
            for side in (128, 256)
        ),
    ]


@attack(
    "masks that are none",
    f"{_AT_ONCE} callers with masks whose runs overflow, are a million, or have no end, and with wrong logits",
    token=True,
    refused=True,
)
async def wrong_masks(target: Target) -> Outcomes:
    prompts = [
        *(types_pb2.Prompt(mask_rle=each) for each in _wrong_runs()),
        *(types_pb2.Prompt(mask=each) for each in _wrong_logits()),
    ]
    requests = itertools.cycle([pb.SegmentRequest(image_id=target.image_id, prompts=[each]) for each in prompts])
    async with connected(target.decoder) as channel:
        stub: decoder_pb2_grpc.DecoderServiceAsyncStub = decoder_pb2_grpc.DecoderServiceStub(channel)
        return await again_and_again(
            lambda: stub.Segment(next(requests), timeout=30, metadata=target.metadata), _AT_ONCE, target.seconds
        )


@attack(
    "masks of objects that are none",
    f"{_AT_ONCE} Track streams with objects whose masks' runs overflow, are a million, or have no end",
    token=True,
    refused=True,
)
async def wrong_objects(target: Target) -> Outcomes:
    """Each stream sends the next mask when the one before is answered."""
    opened = tracker_pb2.OpenTrack(hand_over=True, width_px=_WIDTH, height_px=_HEIGHT)
    part = tracker_pb2.FramePart(chunk=picture(400), last=True)
    masks = _wrong_runs()

    async def one() -> Outcomes:
        outcomes, answered = Outcomes(), asyncio.Event()

        async def sent() -> AsyncIterator[tracker_pb2.TrackRequest]:
            yield tracker_pb2.TrackRequest(open=opened)
            yield tracker_pb2.TrackRequest(frame=tracker_pb2.TrackFrame(part=part))
            for mask in itertools.cycle(masks):
                answered.clear()
                prompt = tracker_pb2.TrackPrompt(object_id="cup", mask=mask)
                yield tracker_pb2.TrackRequest(request_id="mask", prompt=prompt)
                await answered.wait()

        async def stream() -> None:
            async with connected(target.tracker) as channel:
                stub: tracker_pb2_grpc.TrackerServiceAsyncStub = tracker_pb2_grpc.TrackerServiceStub(channel)
                async for answer in stub.Track(sent(), metadata=target.metadata):
                    if answer.request_id == "mask":
                        is_refused = answer.HasField("error")
                        outcomes["refused" if is_refused else f"OK {answer.WhichOneof('outcome')}"] += 1
                        answered.set()

        return await until_the_end(stream(), target.seconds, outcomes)

    total = Outcomes()
    for each in await asyncio.gather(*(one() for _ in range(_AT_ONCE)), return_exceptions=True):
        total += each if isinstance(each, Counter) else Outcomes([said(each)])
    return total
