"""What is received takes memory before it comes, and gives it back."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from maskwire.v1 import decoder_pb2, types_pb2
from maskwire_core.config import ServiceSettings
from maskwire_core.errors import InvalidArgument, ResourceExhausted
from maskwire_core.rpc.message_fields import FIELD_BYTES, MOST_FIELDS, memory_of
from maskwire_core.rpc.receiving import Receiver, Unparsed, tolerant_parser

MIB = 1 << 20


def received(message: Any) -> Any:
    """What gRPC gives for a message."""
    return tolerant_parser(type(message).FromString, message.DESCRIPTOR)(message.SerializeToString())


async def sent(*messages: Any) -> AsyncIterator[Any]:
    for message in messages:
        yield received(message)


async def just(message: Any) -> AsyncIterator[Any]:
    yield message


def test_a_message_takes_the_memory_of_the_largest_until_its_size_is_known() -> None:
    async def run() -> None:
        receiver = Receiver(ServiceSettings(max_request_bytes=MIB, call_bytes=4 * MIB))
        held = []

        async def arriving() -> AsyncIterator[Any]:
            held.append(receiver.budget.held)
            yield received(decoder_pb2.SegmentRequest(image_id="x" * 1000))

        with receiver.budget.account("a") as account:
            message = (await receiver.one(arriving(), account)).message
            held.append(receiver.budget.held)
        assert held == [MIB, memory_of(message)]
        assert receiver.budget.held == 0
        with receiver.budget.account("a") as account, pytest.raises(InvalidArgument, match="no message"):
            await receiver.one(sent(), account)
        with receiver.budget.account("b") as other, receiver.budget.account("a") as account:
            other.take(3 * MIB)
            with pytest.raises(ResourceExhausted) as refused:
                other.take(1)
            assert refused.value.reason == "TOO_MUCH_IN_PROGRESS"
            await receiver.one(sent(message), account)  # another tenant finds room
        assert receiver.budget.held == 0

    asyncio.run(run())


def test_a_stream_keeps_one_message_at_a_time() -> None:
    async def run() -> None:
        receiver = Receiver(ServiceSettings())
        message = decoder_pb2.SegmentStreamRequest(request_id="x" * 1000)
        with receiver.budget.account("a") as account:
            async for each in receiver.each(sent(message, message), account):
                assert receiver.budget.held == memory_of(each)
            assert receiver.budget.held == 0
        with receiver.budget.account("a") as account:
            messages = receiver.each(sent(message), account)
            await anext(messages)
        assert await anext(messages, None) is None  # the call has ended meanwhile

    asyncio.run(run())


def test_streams_are_shared_by_tenants() -> None:
    receiver = Receiver(ServiceSettings(max_streams=3))
    with receiver.stream("a"), receiver.stream("a"):
        with pytest.raises(ResourceExhausted) as refused, receiver.stream("a"):
            pass
        assert refused.value.reason == "TOO_MANY_STREAMS"
        with receiver.stream("b"):
            pass
    assert receiver.streams.held == 0


def test_a_message_of_a_stream_that_takes_more_than_is_its_own_is_kept_at_once_or_not_at_all() -> None:
    async def run() -> None:
        receiver = Receiver(ServiceSettings(max_request_bytes=MIB, call_bytes=6 * MIB))
        empty = types_pb2.Prompt()
        message = decoder_pb2.SegmentStreamRequest(segment=decoder_pb2.StreamPrompts(prompts=30_000 * [empty]))
        with receiver.budget.account("other") as other, receiver.budget.account("a") as account:
            other.take(4 * MIB)
            with pytest.raises(ResourceExhausted) as refused:
                await anext(receiver.each(sent(message), account))
            assert refused.value.reason == "TOO_MUCH_IN_PROGRESS"
            other.give_back(3 * MIB)
            assert await anext(receiver.each(sent(message), account)) == message

    asyncio.run(run())


def test_what_is_refused_is_not_kept() -> None:
    many = decoder_pb2.SegmentRequest(prompts=[types_pb2.Prompt()] * MOST_FIELDS).SerializeToString()
    parse, kind = decoder_pb2.SegmentRequest.FromString, decoder_pb2.SegmentRequest.DESCRIPTOR
    unparsed = tolerant_parser(parse, kind)(many)
    assert isinstance(unparsed, Unparsed)
    refused: list[Any] = [
        unparsed.parse(),
        tolerant_parser(parse, kind)(b"\xff"),
        tolerant_parser(parse, kind, 4096)(bytes(4097)),
    ]
    assert [(each.reason, each.nbytes) for each in refused] == [
        ("UNREADABLE_MESSAGE", len(many)),
        ("UNREADABLE_MESSAGE", 1),
        ("UNREADABLE_MESSAGE", 4097),
    ]
    assert all(each.__traceback__ is None and each.__context__ is None for each in refused)
    receiver = Receiver(ServiceSettings())
    with pytest.raises(InvalidArgument, match="larger than 4096"):
        asyncio.run(receiver.from_stranger(just(refused[2]), "ipv4:127.0.0.1:1"))
    with receiver.budget.account("a") as account, pytest.raises(InvalidArgument, match="fields or more"):
        asyncio.run(receiver.one(just(unparsed), account))


def test_only_messages_of_few_fields_are_parsed_on_the_event_loop() -> None:
    async def run(request: Any) -> set[threading.Thread]:
        threads = []

        def parse(data: bytes) -> Any:
            threads.append(threading.current_thread())
            return decoder_pb2.SegmentRequest.FromString(data)

        receiver = Receiver(ServiceSettings())
        with receiver.budget.account("a") as account:
            message = tolerant_parser(parse, request.DESCRIPTOR)(request.SerializeToString())
            assert (await receiver.one(just(message), account)).message == request
            assert receiver.budget.held == memory_of(request)
        return set(threads)

    here, box = {threading.current_thread()}, types_pb2.Step(set_box=types_pb2.Box(x_max_px=9))
    mask = types_pb2.Prompt(mask=types_pb2.Logits(data=b"x" * 200_000))
    assert asyncio.run(run(decoder_pb2.SegmentRequest(prompts=[mask]))) == here
    steps = decoder_pb2.SegmentRequest(prompts=[types_pb2.Prompt(steps=[box] * 700)] * 10)
    assert asyncio.run(run(steps)).isdisjoint(here)


def test_messages_of_many_fields_take_more_than_their_bytes() -> None:
    # upb takes 44 bytes a byte for empty prompts.
    few = decoder_pb2.SegmentRequest(prompts=[types_pb2.Prompt()] * 10_000)
    assert few.ByteSize() == 20_000
    assert memory_of(few) > 900_000
    mask = types_pb2.Prompt(mask=types_pb2.Logits(data=b"x" * 200_000))
    assert memory_of(decoder_pb2.SegmentRequest(prompts=[mask])) < 201_000
    click = decoder_pb2.SegmentRequest(prompts=[types_pb2.Prompt(points=[types_pb2.Point(x_px=3)])])
    assert memory_of(click) < 1000
    steps = decoder_pb2.SegmentRequest(prompts=[types_pb2.Prompt(steps=[types_pb2.Step()] * 700)] * 100)
    assert memory_of(steps) == steps.ByteSize() + 70_100 * FIELD_BYTES
