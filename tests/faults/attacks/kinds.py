"""What an attack is, and what all of them use."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

import grpc

from testing.wire import MANY_CALLS, details

Outcomes = Counter[str]
"""How often an attacker was answered in which way."""

_WITHOUT_LIMITS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # a connection of its own
    *MANY_CALLS,
]


@dataclass
class Target:
    """What is attacked, and by whom.

    Attributes:
        encoder: Address of the encoder.
        decoder: Address of the decoder.
        tracker: Address of the tracker.
        gateway: Address of the gateway, host and port.
        store: URL of the store, which only an attacker reaches who can write to it.
        namespace: The attacker's namespace; empty for nobody.
        token: The attacker's token; empty for nobody.
        slow_token: A token of the attacker's that allows 1,000 bytes a second.
        image_id: The name of an image of 60 x 40 pixels in the attacker's namespace.
        large_id: The name of one of 3,000 x 3,000 pixels.
        seconds: How long the attack lasts.
        authority: The certificate, as PEM, by which the decoder's is known; empty if that does without TLS.
    """

    encoder: str
    decoder: str
    tracker: str
    gateway: str
    store: str
    namespace: str
    token: str
    slow_token: str
    image_id: str
    large_id: str
    seconds: float
    authority: str

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return bearer(self.token)

    @property
    def web(self) -> tuple[str, int]:
        """Host and port of the gateway."""
        host, _, port = self.gateway.rpartition(":")
        return host, int(port)


@dataclass(frozen=True)
class Attack:
    """A way to attack.

    Attributes:
        name: A short name.
        how: What is sent, in a few words.
        by: Who attacks: "nobody", "a tenant", or somebody who can do even more.
        needs_token: Whether the attacker is a tenant; otherwise nobody.
        before: What was seen of this kind before there were budgets of bytes, at commit 38abf41.
        refused: Whether nothing of it may be answered with success.
        tls: Whether the decoder under attack has TLS.
        run: Attacks for `Target.seconds`.
    """

    name: str
    how: str
    by: str
    needs_token: bool
    before: str
    refused: bool
    tls: bool
    run: Callable[[Target], Awaitable[Outcomes]]


NOBODY, TENANT = "nobody", "a tenant"
ATTACKS: list[Attack] = []
"""All attacks, once the modules of this package are imported."""


def attack(
    name: str, how: str, *, token: bool, by: str = "", before: str = "", refused: bool = False, tls: bool = False
) -> Callable[[Callable[[Target], Awaitable[Outcomes]]], Callable[[Target], Awaitable[Outcomes]]]:
    """Decorates a function that attacks; see `Attack`."""

    def listed(run: Callable[[Target], Awaitable[Outcomes]]) -> Callable[[Target], Awaitable[Outcomes]]:
        ATTACKS.append(Attack(name, how, by or (TENANT if token else NOBODY), token, before, refused, tls, run))
        return run

    return listed


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """Returns the metadata that carries a token; none for nobody."""
    return (("authorization", f"Bearer {token}"),) if token else ()


@contextlib.asynccontextmanager
async def connected(address: str) -> AsyncIterator[grpc.aio.Channel]:
    """A connection of its own, without limits on the attacker's side."""
    async with grpc.aio.insecure_channel(address, _WITHOUT_LIMITS) as channel:
        yield channel


def said(answer: Any) -> str:
    """Returns how a call ended: OK, or the status and the reason."""
    if isinstance(answer, grpc.aio.AioRpcError):
        try:
            code, reason, _ = details(answer)
        except (KeyError, AssertionError):
            return answer.code().name
        return f"{code} {reason}"
    if isinstance(answer, asyncio.CancelledError):
        return "not answered"
    return type(answer).__name__ if isinstance(answer, BaseException) else "OK"


async def crowd(calls: Iterable[Awaitable[Any]], seconds: float) -> Outcomes:
    """Makes calls at the same time, gives up those that are not answered in time, and counts how they ended."""
    tasks = [asyncio.ensure_future(_awaited(call)) for call in calls]
    if tasks:
        await asyncio.wait(tasks, timeout=seconds)
    for task in tasks:
        task.cancel()
    return Counter(said(answer) for answer in await asyncio.gather(*tasks, return_exceptions=True))


async def until_the_end(work: Coroutine[Any, Any, None], seconds: float, outcomes: Outcomes) -> Outcomes:
    """Lets work on one call go on for so long. Returns the outcomes that it counted, with how the call ended if it
    ended by itself with an error."""
    try:
        await asyncio.wait_for(work, seconds)
    except TimeoutError:
        pass
    except grpc.aio.AioRpcError as error:
        outcomes[said(error)] += 1
    return outcomes


async def _awaited(call: Awaitable[Any]) -> Any:
    return await call


async def again_and_again(call: Callable[[], Awaitable[Any]], at_once: int, seconds: float) -> Outcomes:
    """Has so many callers make one call after another, for so long, with a pause of 0.1 s after each refusal."""
    outcomes, end = Outcomes(), time.monotonic() + seconds

    async def caller() -> None:
        while time.monotonic() < end:
            try:
                await call()
                outcomes["OK"] += 1
            except (grpc.aio.AioRpcError, OSError) as error:
                outcomes[said(error)] += 1
                await asyncio.sleep(0.1)

    callers = [asyncio.ensure_future(caller()) for _ in range(at_once)]
    await asyncio.wait(callers, timeout=seconds)
    for one in callers:
        one.cancel()
    left = await asyncio.gather(*callers, return_exceptions=True)
    outcomes.update(said(one) for one in left if isinstance(one, BaseException))
    return outcomes
