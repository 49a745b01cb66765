"""Ends the work on requests whose callers have left."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from maskwire_core.http.problems import Problem
from starlette.types import Message, Receive, Send


@contextlib.asynccontextmanager
async def until_caller_leaves(receive: Receive, send: Send, has_body: bool) -> AsyncIterator[tuple[Receive, Send]]:
    """Cancels the body of `with` when the caller closes the connection, once all of the request has come and as long as
    the answer has not been sent. So a call of a server ends that nobody waits for, and the memory and the slot of its
    request are free again.

    Args:
        receive: Receives messages of ASGI.
        send: Sends them.
        has_body: Whether the request has a body. It has come when the last of it was received.

    Yields:
        What is to be used in place of `receive` and `send`.

    Raises:
        Problem: CLIENT_LEFT.
    """
    serving = asyncio.current_task()
    assert serving is not None
    has_left = is_answered = False
    first: list[Message] = []
    watching: asyncio.Task[None] | None = None

    async def watch() -> None:
        nonlocal has_left
        while (await receive())["type"] != "http.disconnect":  # which also comes after the answer
            pass
        if not is_answered:
            has_left = True
            serving.cancel()

    async def receive_and_watch() -> Message:
        nonlocal watching
        if first:
            return first.pop()
        if watching is not None:
            await asyncio.shield(watching)
            return {"type": "http.disconnect"}
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            watching = asyncio.create_task(watch())
        return message

    async def send_and_note(message: Message) -> None:
        nonlocal is_answered
        is_answered = message["type"] == "http.response.body" and not message.get("more_body", False)
        await send(message)

    if not has_body:
        first.append(await receive_and_watch())
    try:
        yield receive_and_watch, send_and_note
    except asyncio.CancelledError as error:
        if not has_left:
            raise
        serving.uncancel()
        raise Problem(499, "the client has left", "CLIENT_LEFT") from error
    finally:
        if watching is not None:
            watching.cancel()
