"""A client or session that is used after `close` says so, whichever method is called."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Any

import numpy as np
import pytest
from maskwire import AsyncClient, Client, MaskwireError, Prompt
from maskwire.blocking_session import Session
from maskwire.session import AsyncSession

PICTURE = np.zeros((20, 30, 3), np.uint8)
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "embed": (PICTURE,),
    "embed_many": ([PICTURE],),
    "segment_many": ([(PICTURE, Prompt())],),
    "segment": (PICTURE,),
    "segment_objects": (PICTURE, [Prompt()]),
    "prefetch": (PICTURE,),
    "session": (PICTURE,),
    "generate_masks": (PICTURE,),
    "everything": (PICTURE,),
    "get": ("cup",),
    "delete": ("cup",),
    "set_image": (PICTURE,),
    "click": (1, 2),
    "hover": (1, 2),
    "box": (1, 2, 3, 4),
    "hover_box": (1, 2, 3, 4),
    "remove_point": (0,),
}


def methods(kind: type) -> list[str]:
    """All public methods but `close`, and what `with` calls."""
    public = [name for name, member in vars(kind).items() if inspect.isfunction(member) and not name.startswith("_")]
    return [*(name for name in public if name != "close"), "__aenter__" if "Async" in kind.__name__ else "__enter__"]


def expect_closed(call: Any) -> None:
    with pytest.raises(MaskwireError) as caught:
        call()
    assert caught.value.reason == "CLOSED"


def use(target: Client | Session, name: str) -> None:
    made = getattr(target, name)(*ARGUMENTS.get(name, ()))
    if isinstance(made, Iterator):
        next(made)


async def use_asynchronously(target: AsyncClient | AsyncSession, name: str) -> None:
    made = getattr(target, name)(*ARGUMENTS.get(name, ()))
    if isinstance(made, AsyncIterator):
        await anext(made)
    elif isinstance(made, Awaitable):
        await made


@pytest.mark.parametrize("name", methods(Client))
def test_a_closed_client_says_so(name: str) -> None:
    client = Client("e:1", "d:1")
    client.close()
    client.close()  # which is fine
    expect_closed(lambda: use(client, name))


@pytest.mark.parametrize("name", methods(AsyncClient))
def test_a_closed_asyncio_client_says_so(name: str) -> None:
    async def scenario() -> None:
        client = AsyncClient("e:1", "d:1")
        await client.close()
        await use_asynchronously(client, name)

    expect_closed(lambda: asyncio.run(scenario()))


@pytest.mark.parametrize("whose", ["client", "session"])
@pytest.mark.parametrize("name", methods(Session))
def test_a_closed_session_says_so(name: str, whose: str) -> None:
    with Client("e:1", "d:1") as client:
        session = client.session(PICTURE)
        (client if whose == "client" else session).close()
        expect_closed(lambda: use(session, name))
        assert session.objects == []  # what is known without a server stays readable


@pytest.mark.parametrize("name", methods(AsyncSession))
def test_a_closed_asyncio_session_says_so(name: str) -> None:
    async def scenario() -> None:
        async with AsyncClient("e:1", "d:1") as client:
            session = client.session(PICTURE)
            await session.close()
            await use_asynchronously(session, name)

    expect_closed(lambda: asyncio.run(scenario()))


def test_iterators_that_began_before_say_so() -> None:
    client = Client("e:1", "d:1")
    begun = [client.images(), client.embed_many([PICTURE]), client.generate_masks(PICTURE)]
    client.close()
    for iterator in begun:
        expect_closed(lambda iterator=iterator: next(iterator))  # type: ignore[misc]
