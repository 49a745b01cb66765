"""Request bodies, received within limits of size, time and memory."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request

from maskwire_core.http.problems import Problem, busy


class Body:
    """A body that was received, and the memory that its request takes."""

    def __init__(self, owner: "Bodies") -> None:
        self.data = b""
        self.held_bytes = 0
        self._owner = owner

    def hold(self, count: int) -> None:
        """Counts more bytes of memory, until the request is answered.

        Raises:
            Problem: TOO_MUCH_IN_PROGRESS: all requests together take too much.
        """
        self.held_bytes += count
        self._owner.held_bytes += count
        if self._owner.held_bytes > self._owner.memory_bytes:
            raise busy("too many large requests at once; try again", "TOO_MUCH_IN_PROGRESS")

    def release(self) -> None:
        """Counts no memory for the request any longer."""
        self._owner.held_bytes -= self.held_bytes
        self.held_bytes = 0


class Bodies:
    """Receives request bodies.

    Args:
        memory_bytes: Memory for the bodies of all requests in progress; a request that exceeds it is refused.
        timeout_s: Longest time for receiving a body, in seconds.
    """

    def __init__(self, memory_bytes: int, timeout_s: float) -> None:
        self.memory_bytes = memory_bytes
        self.held_bytes = 0
        self._timeout_s = timeout_s

    @contextlib.asynccontextmanager
    async def receive(self, request: Request, max_bytes: int) -> AsyncIterator[Body]:
        """Receives a body, whose memory counts until the context ends.

        Raises:
            Problem: BODY_TOO_LARGE, BODY_TOO_SLOW, CLIENT_LEFT, or TOO_MUCH_IN_PROGRESS.
        """
        body = Body(self)
        try:
            try:
                async with asyncio.timeout(self._timeout_s):
                    body.data = await _read(request, body, max_bytes)
            except TimeoutError as error:
                raise Problem(
                    408, f"the body did not come within {self._timeout_s:g} s; send it faster", "BODY_TOO_SLOW"
                ) from error
            except ClientDisconnect as error:
                raise Problem(499, "the client has left", "CLIENT_LEFT") from error
            except Problem:
                body.release()  # other requests can use the memory while the rest of the body arrives
                await _discard(request, self._timeout_s)
                raise
            yield body
        finally:
            body.release()


async def _read(request: Request, body: Body, max_bytes: int) -> bytes:
    declared = request.headers.get("content-length", "0")
    size = int(declared) if declared.isdecimal() else 0
    chunks: list[bytes] = []
    too_large = Problem(413, f"the body is larger than {max_bytes} bytes", "BODY_TOO_LARGE")
    if size > max_bytes:
        raise too_large
    async for chunk in request.stream():
        body.hold(len(chunk))  # as it arrives: a size that is merely declared takes no memory
        chunks.append(chunk)
        if body.held_bytes > max_bytes:
            raise too_large
    return b"".join(chunks)


async def _discard(request: Request, timeout_s: float) -> None:
    """Reads the rest of a body without keeping it: many clients read no answer before they have sent everything."""
    if "expect" in request.headers:
        return
    with contextlib.suppress(ClientDisconnect, TimeoutError, RuntimeError):  # RuntimeError: it was read to its end
        async with asyncio.timeout(timeout_s):
            async for _ in request.stream():
                pass
