"""Attacks by messages to the decoder: large ones, many, and small ones that make big work."""

import asyncio
from collections.abc import AsyncIterator, Iterable

from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import decoder_pb2_grpc, types_pb2

from .kinds import Outcomes, Target, again_and_again, attack, connected, crowd, until_the_end

MIB = 1 << 20
_LARGE = 60 * MIB
_SEGMENT = "/maskwire.v1.DecoderService/Segment"
_CLICK = types_pb2.Prompt(points=[types_pb2.Point(x_px=3, y_px=3)])


@attack(
    "large messages before the token",
    "20 messages of 60 MiB without a token",
    token=False,
    before="decoder 111 to 2,764 MiB",
    refused=True,
)
async def large_messages(target: Target) -> Outcomes:
    return await _large_messages(target)


@attack("large messages of a tenant", "20 messages of 60 MiB with a token", token=True)
async def large_messages_of_a_tenant(target: Target) -> Outcomes:
    return await _large_messages(target)


async def _large_messages(target: Target) -> Outcomes:
    large = pb.SegmentRequest(image_id="x" * _LARGE).SerializeToString()
    async with connected(target.decoder) as channel:
        call = channel.unary_unary(_SEGMENT)
        calls = (call(large, timeout=target.seconds, metadata=target.metadata) for _ in range(20))
        return await crowd(calls, target.seconds + 2)


@attack(
    "crops bomb",
    "a GenerateMasks of 2.4 kB with 300 crops of 512 x 512 clicks",
    token=True,
    before="+1.2 GiB, event loop stalled for 2.9 s",
)
async def crops(target: Target) -> Outcomes:
    request = pb.GenerateMasksRequest(image_id=target.image_id, grid=pb.PointGrid(points_per_side=1))
    for _ in range(300):
        request.crops.add().grid.points_per_side = 512
    return await _generate(target, request)


@attack("points bomb", "four GenerateMasks of 56 MiB, which list 3.6 million clicks each", token=True)
async def points(target: Target) -> Outcomes:
    request = pb.GenerateMasksRequest(image_id=target.image_id)
    request.grid.points.extend([0.5] * (56 * MIB // 8))
    return await _generate(target, request)


@attack("finest grids", "ten GenerateMasks of 262,144 clicks that send a result after each 4 billion", token=True)
async def grids(target: Target) -> Outcomes:
    grid = pb.PointGrid(points_per_side=512)
    # All masks are kept until the call ends: none is too bad, and none too similar to another.
    request = pb.GenerateMasksRequest(
        image_id=target.image_id,
        grid=grid,
        points_per_batch=2**32 - 1,
        pred_iou_thresh=-1,
        stability_score_thresh=-1,
        box_nms_thresh=1,
    )
    return await _generate(target, request, 10)


async def _generate(target: Target, request: pb.GenerateMasksRequest, at_once: int = 4) -> Outcomes:
    async with connected(target.decoder) as channel:
        stub: decoder_pb2_grpc.DecoderServiceAsyncStub = decoder_pb2_grpc.DecoderServiceStub(channel)

        async def call() -> None:
            async for _ in stub.GenerateMasks(request, timeout=target.seconds, metadata=target.metadata):
                pass

        return await again_and_again(call, at_once, target.seconds)


async def _session(target: Target, requests: Iterable[pb.SegmentStreamRequest], reads: bool = True) -> Outcomes:
    """Sends requests on a stream that stays open for `Target.seconds`, and counts the answers."""
    outcomes = Outcomes()

    async def sent() -> AsyncIterator[pb.SegmentStreamRequest]:
        for request in requests:
            yield request
            outcomes["sent"] += 1
        await asyncio.sleep(target.seconds)

    async def stream() -> None:
        async with connected(target.decoder) as channel:
            stub: decoder_pb2_grpc.DecoderServiceAsyncStub = decoder_pb2_grpc.DecoderServiceStub(channel)
            call = stub.SegmentStream(sent(), metadata=target.metadata)
            if not reads:
                await asyncio.sleep(target.seconds)
            async for answer in call:
                outcomes["refused" if answer.HasField("error") else str(answer.WhichOneof("outcome"))] += 1

    return await until_the_end(stream(), target.seconds, outcomes)


@attack(
    "read-ahead",
    "30 messages of 60 MiB on a stream, behind a set_image that waits for a minute",
    token=True,
    before="+2.0 GiB",
)
async def read_ahead(target: Target) -> Outcomes:
    def requests() -> Iterable[pb.SegmentStreamRequest]:
        yield pb.SegmentStreamRequest(set_image=pb.SetImage(image_id="missing", wait_ms=60_000))
        for _ in range(30):
            request = pb.SegmentStreamRequest()
            request.segment.prompts.add().prompt_id = "x" * _LARGE
            yield request

    return await _session(target, requests())


@attack(
    "histories",
    "a stream of 300 objects of 1,000 steps and 256 clicks each, and their logits kept",
    token=True,
    before="restore of 1.5 MB: +1.8 GiB",
)
async def histories(target: Target) -> Outcomes:
    def requests() -> Iterable[pb.SegmentStreamRequest]:
        yield pb.SegmentStreamRequest(set_image=pb.SetImage(image_id=target.image_id))
        for number in range(300):
            request = pb.SegmentStreamRequest(request_id=str(number))
            steps = request.segment.prompts.add().steps
            for step in range(1000):
                if step < 255 or step % 2:
                    steps.add().add_point.x_px = number % 50
                else:
                    steps.add().remove_point = 0
            yield request

    return await _session(target, requests())


@attack("deep steps", "ten callers with 10,000 steps a request that no decoder has in memory", token=True)
async def deep_steps(target: Target) -> Outcomes:
    import itertools

    numbers = itertools.count()
    async with connected(target.decoder) as channel:
        stub: decoder_pb2_grpc.DecoderServiceAsyncStub = decoder_pb2_grpc.DecoderServiceStub(channel)

        async def call() -> None:
            request = pb.SegmentRequest(image_id=target.image_id)
            for _ in range(10):
                steps = request.prompts.add().steps
                for step in range(1000):
                    steps.add().set_box.CopyFrom(types_pb2.Box(x_max_px=5 + next(numbers) % 50, y_max_px=9 + step % 30))
            await stub.Segment(request, timeout=target.seconds, metadata=target.metadata)

        return await again_and_again(call, 10, target.seconds)


@attack("queue of the decoder", "40 callers with 128 prompts a request, one after another", token=True)
async def decoder_queue(target: Target) -> Outcomes:
    request = pb.SegmentRequest(image_id=target.image_id, prompts=[_CLICK] * 128)
    async with connected(target.decoder) as channel:
        stub: decoder_pb2_grpc.DecoderServiceAsyncStub = decoder_pb2_grpc.DecoderServiceStub(channel)
        return await again_and_again(
            lambda: stub.Segment(request, timeout=30, metadata=target.metadata), 40, target.seconds
        )


@attack("calls that wait", "1,500 requests with wait_ms of a minute", token=True, before="others tenfold slower")
async def waiting(target: Target) -> Outcomes:
    async with connected(target.decoder) as channel:
        stub: decoder_pb2_grpc.DecoderServiceAsyncStub = decoder_pb2_grpc.DecoderServiceStub(channel)
        return await crowd(
            (
                stub.Segment(pb.SegmentRequest(image_id=f"missing {n}", wait_ms=60_000), metadata=target.metadata)
                for n in range(1500)
            ),
            target.seconds,
        )


@attack(
    "answers too large",
    "128 prompts on 3,000 x 3,000 pixels, all candidates in all forms",
    token=True,
    before="18 s, then grpc's bare message",
)
async def large_answers(target: Target) -> Outcomes:
    output = types_pb2.OutputOptions(
        formats=[1, 2, 3, 4, 5], candidates=types_pb2.CANDIDATES_ALL, unclamped_logits=True, logits_type=2
    )
    request = pb.SegmentRequest(image_id=target.large_id, prompts=[_CLICK] * 128, output=output)
    async with connected(target.decoder) as channel:
        stub: decoder_pb2_grpc.DecoderServiceAsyncStub = decoder_pb2_grpc.DecoderServiceStub(channel)
        return await again_and_again(
            lambda: stub.Segment(request, timeout=30, metadata=target.metadata), 4, target.seconds
        )


@attack("answers not read", "30 streams that ask for 9 MB of bits each time and read nothing", token=True)
async def unread_answers(target: Target) -> Outcomes:
    output = types_pb2.OutputOptions(formats=[types_pb2.MASK_FORMAT_PACKED_BITS], candidates=2)
    many = pb.StreamPrompts(prompts=[_CLICK] * 3, output=output)

    def requests() -> Iterable[pb.SegmentStreamRequest]:
        yield pb.SegmentStreamRequest(set_image=pb.SetImage(image_id=target.large_id))
        for number in range(200):
            yield pb.SegmentStreamRequest(request_id=str(number), segment=many)

    outcomes = Outcomes()
    for one in await asyncio.gather(*(_session(target, requests(), reads=False) for _ in range(30))):
        outcomes += one
    return outcomes
