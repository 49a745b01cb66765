"""Receives the messages of calls: not before their caller is known, within a budget of bytes, and in time.

gRPC keeps at most 64 KiB of a stream, HTTP/2's first window, until a message is asked for, and then as much as the
message is long. So whoever asks for one takes the memory of the largest first.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from google.protobuf.message import DecodeError

from maskwire_core.config import ServiceSettings
from maskwire_core.errors import DeadlineExceeded, InvalidArgument, ResourceExhausted
from maskwire_core.networks import network_of_peer
from maskwire_core.rpc.message_fields import MOST_FIELDS, count_fields, memory_of, memory_of_fields
from maskwire_core.scheduling.byte_budget import Account, ByteBudget
from maskwire_core.scheduling.executors import ThreadScheduler
from maskwire_core.scheduling.fair_queue import Limits, Requester
from maskwire_core.scheduling.scheduler import Demand
from maskwire_core.scheduling.shares import Shares
from maskwire_core.telemetry.metrics import LiveMetric

STRANGERS = 8
"""Largest messages of health checks that are received at the same time; addresses share them."""
STRANGERS_BYTES = 4 << 10
"""Largest message of a health check that is parsed: it has a service's name."""

_FEW_FIELDS = 1000  # are parsed on the event loop, within half a millisecond
_PATIENCE_S = 30.0
_STRANGERS_S = 2.0


class Receiver:
    """Receives the messages of a server's calls.

    Args:
        settings: How much may be received.

    Attributes:
        budget: Memory for messages that are received or wait, and for answers, in bytes.
        streams: Streams that are open.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        # Room for two of the largest, since one tenant alone may have two thirds.
        self.budget = ByteBudget(max(settings.call_bytes, 2 * settings.max_request_bytes))
        self.streams = Shares(settings.max_streams)
        self._strangers = ByteBudget(STRANGERS * settings.max_request_bytes)
        self._max_bytes = settings.max_request_bytes

    def live_metrics(self) -> list[LiveMetric]:
        """Returns gauges of what calls take."""
        return self.budget.live_metrics("calls")

    def stream(self, tenant: str) -> AbstractContextManager[None]:
        """Counts a stream of a tenant while the body runs. Raises TOO_MANY_STREAMS."""
        refusal = ResourceExhausted(
            "TOO_MANY_STREAMS", "too many streams are open; close some, or try again later", retry_after_s=1
        )
        return self.streams.holding(tenant, 1, refusal)

    async def from_stranger(self, messages: AsyncIterator[Any], peer: str) -> Any:
        """Receives the small message of a call that anybody may make. Raises as `one`.

        Args:
            messages: Messages of the call.
            peer: Where it came from, as gRPC says it.
        """
        with self._strangers.account(network_of_peer(peer)) as account:
            return (await self.one(messages, account, _STRANGERS_S)).message

    async def one(self, messages: AsyncIterator[Any], account: Account, seconds: float = _PATIENCE_S) -> "Received":
        """Receives the only message of a call, whose memory the account keeps.

        Args:
            messages: Messages of the call.
            account: The call's.
            seconds: How long to wait for the memory, and then for the message.

        Raises:
            ResourceExhausted: TOO_MUCH_IN_PROGRESS: there is no memory for it.
            DeadlineExceeded: MESSAGE_STALLED: it does not come.
            InvalidArgument: UNREADABLE_MESSAGE; `Unreadable` if something came.
        """
        await account.wait(self._max_bytes, seconds)
        try:
            async with asyncio.timeout(seconds):
                message = await anext(aiter(messages), None)
        except TimeoutError as error:
            raise DeadlineExceeded(
                "MESSAGE_STALLED", f"the message did not come within {seconds:g} s; send it faster"
            ) from error
        if message is None:
            raise InvalidArgument(
                "UNREADABLE_MESSAGE", "the call has no message, or a larger one than --max-request-bytes"
            )
        received = await self._parsed(message, account.tenant)
        surplus = account.nbytes - received.memory
        if surplus > 0:
            account.give_back(surplus)
        else:
            account.take(-surplus)
        return received

    async def each(self, messages: AsyncIterator[Any], account: Account) -> AsyncGenerator[Any, None]:
        """Yields the messages of a stream. Each takes memory until the next is asked for; the one that may be on its
        way is a stream's own. Raises as `one`.

        Args:
            messages: Messages of the stream.
            account: Has nothing else than these messages.
        """
        async for message in messages:
            received = await self._parsed(message, account.tenant)
            if received.memory > self._max_bytes:  # more than is the stream's own
                account.take(received.memory)
            else:
                await account.wait(received.memory, _PATIENCE_S)
            yield received.message
            account.give_back(received.memory)

    async def _parsed(self, message: "Received | Unparsed | Unreadable", tenant: str) -> "Received":
        """Parses what was not parsed yet, in the tenant's turn. Raises what stands for a message that was refused."""
        if isinstance(message, Unparsed):
            demand = Demand(Requester(tenant, None))
            parsed: Received | Unreadable = (await self._parser.submit(message.parse, demand)).result
        else:
            parsed = message
        if isinstance(parsed, Unreadable):
            raise parsed
        return parsed

    @cached_property
    def _parser(self) -> ThreadScheduler:
        return ThreadScheduler("parser", 1, Limits())


class Unreadable(InvalidArgument):
    """Stands for a message that is not parsed: gRPC itself would answer INTERNAL.

    Args:
        nbytes: Its size.
        why: What is wrong with it.

    Attributes:
        nbytes: As given.
    """

    def __init__(self, nbytes: int, why: str = "the bytes are not the message that this call takes") -> None:
        super().__init__("UNREADABLE_MESSAGE", why)
        self.nbytes = nbytes


@dataclass(frozen=True, slots=True)
class Received:
    """A message, how many bytes it has on the wire, and how many of memory."""

    message: Any
    nbytes: int
    memory: int


@dataclass(frozen=True, slots=True)
class Unparsed:
    """A message of so many fields that parsing it would hold up the event loop, and what parses it on a thread."""

    parse: Callable[[], Received | Unreadable]


def tolerant_parser(
    parse: Callable[[bytes], Any], kind: Any, most_bytes: int | None = None
) -> Callable[[bytes], Received | Unparsed | Unreadable]:
    """Returns a parser that raises nothing: what it refuses becomes an error, which `Receiver` raises.

    Args:
        parse: Parses a message.
        kind: The message's descriptor; None where it is not known.
        most_bytes: Largest message that is parsed, in bytes; None for whatever is received.
    """

    def parse_if_quick(data: bytes) -> Received | Unparsed | Unreadable:
        if most_bytes is not None and len(data) > most_bytes:
            return Unreadable(len(data), f"the message is larger than {most_bytes} bytes")
        count = 0 if kind is None else count_fields(data, kind, _FEW_FIELDS)
        if count == _FEW_FIELDS:
            return Unparsed(partial(parse_whole, data))
        return parse_tolerantly(data, count)

    def parse_whole(data: bytes) -> Received | Unreadable:
        return parse_tolerantly(data, count_fields(data, kind))

    def parse_tolerantly(data: bytes, count: int) -> Received | Unreadable:
        if count == MOST_FIELDS:
            return Unreadable(len(data), f"the message has {MOST_FIELDS} fields or more; send less at once")
        try:
            message = parse(data)
        except DecodeError:
            return Unreadable(len(data))
        memory = memory_of(message) if kind is None else memory_of_fields(len(data), count)
        return Received(message, len(data), memory)

    return parse_if_quick
