"""Bodies of requests: received within limits of size, time and memory."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request

from maskwire_gateway.problems import Problem, busy


class Bodies:
    """Receives bodies.

    Args:
        memory_bytes: For the bodies of all requests in progress; a request that goes beyond it is refused.
        timeout_s: Longest time for receiving one.
    """

    def __init__(self, memory_bytes: int, timeout_s: float) -> None:
        self._memory_bytes = memory_bytes
        self._timeout_s = timeout_s
        self.held_bytes = 0

    @contextlib.asynccontextmanager
    async def receive(self, request: Request, max_bytes: int) -> AsyncIterator[bytes]:
        """The body; its memory is taken to be free again when the context ends.

        Raises:
            Problem: It is too large, too slow, or too much together with others' bodies.
        """
        chunks: list[bytes] = []
        held = 0
        try:
            try:
                async with asyncio.timeout(self._timeout_s):
                    declared = request.headers.get("content-length", "0")
                    if declared.isdecimal() and int(declared) > max_bytes:
                        await self._refuse(request, max_bytes)
                    async for chunk in request.stream():
                        held += len(chunk)
                        self.held_bytes += len(chunk)
                        chunks.append(chunk)
                        if held > max_bytes:
                            chunks.clear()
                            await self._refuse(request, max_bytes)
                        if self.held_bytes > self._memory_bytes:
                            chunks.clear()
                            await _discard(request)
                            raise busy("too many large requests at once; try again", "TOO_MUCH_IN_PROGRESS")
            except TimeoutError as error:
                raise Problem(
                    408, f"the body did not come within {self._timeout_s:g} s; send it faster", "BODY_TOO_SLOW"
                ) from error
            except ClientDisconnect as error:
                raise Problem(499, "the client has left", "CLIENT_LEFT") from error
            body = b"".join(chunks)
            chunks.clear()
            yield body
        finally:
            self.held_bytes -= held

    async def _refuse(self, request: Request, max_bytes: int) -> None:
        await _discard(request)
        raise Problem(413, f"the body is larger than {max_bytes} bytes", "BODY_TOO_LARGE")


async def _discard(request: Request) -> None:
    """Reads on without keeping anything: many clients read no answer before they have sent everything."""
    if "expect" in request.headers:
        return
    async for _ in request.stream():
        pass
