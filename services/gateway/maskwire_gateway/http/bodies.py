"""Bodies of requests: received within limits of size, time and memory."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request

from maskwire_gateway.http.problems import Problem, busy


class Body:
    """A body that was received, and the memory that its request takes."""

    def __init__(self, owner: "Bodies") -> None:
        self.data = b""
        self.held_bytes = 0
        self._owner = owner

    def hold(self, count: int) -> None:
        """Counts memory that the request takes until it is answered.

        Raises:
            Problem: All requests together take too much.
        """
        self.held_bytes += count
        self._owner.held_bytes += count
        if self._owner.held_bytes > self._owner.memory_bytes:
            raise busy("too many large requests at once; try again", "TOO_MUCH_IN_PROGRESS")

    def release(self) -> None:
        """Counts it no more."""
        self._owner.held_bytes -= self.held_bytes
        self.held_bytes = 0


class Bodies:
    """Receives bodies.

    Args:
        memory_bytes: For the bodies of all requests in progress; a request that goes beyond it is refused.
        timeout_s: Longest time for receiving one.
    """

    def __init__(self, memory_bytes: int, timeout_s: float) -> None:
        self.memory_bytes = memory_bytes
        self.held_bytes = 0
        self._timeout_s = timeout_s

    @contextlib.asynccontextmanager
    async def receive(self, request: Request, max_bytes: int) -> AsyncIterator[Body]:
        """The body; what it holds counts until the context ends.

        Raises:
            Problem: It is too large, too slow, or too much together with others.
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
                body.release()  # others go on while the rest of it comes
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
        body.hold(len(chunk))  # as it comes: what was merely declared takes no memory
        chunks.append(chunk)
        if body.held_bytes > max_bytes:
            raise too_large
    return b"".join(chunks)


async def _discard(request: Request, timeout_s: float) -> None:
    """Reads on without keeping anything: many clients read no answer before they have sent everything."""
    if "expect" in request.headers:
        return
    with contextlib.suppress(ClientDisconnect, TimeoutError, RuntimeError):  # gone, slow, or at its end already
        async with asyncio.timeout(timeout_s):
            async for _ in request.stream():
                pass
