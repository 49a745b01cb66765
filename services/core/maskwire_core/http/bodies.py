"""Request bodies, received within limits of size, time and memory."""

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncGenerator, AsyncIterator

from maskwire import MaskwireError
from starlette.requests import ClientDisconnect, Request

from maskwire_core.http.memory import Held, hold_failed, holder_of
from maskwire_core.http.problems import Problem
from maskwire_core.scheduling.shares import Shares

_GRACE_S = 10.0
_SLOWEST_BYTES_PER_S = 1024  # on average, after that time
_SLOWEST_OF_SMALL_BYTES_PER_S = 64 << 10  # of holders with a small share, who all wait for one another


class Body(Held):
    """A body, as far as it has come, and the memory that its request takes. What it keeps counts."""

    def __init__(self, shares: Shares, holder: str) -> None:
        super().__init__(shares, holder)
        self._received = io.BytesIO()  # its value is what was written, not a copy

    @property
    def data(self) -> bytes:
        """What has come, and was not taken."""
        return self._received.getvalue()

    @property
    def size(self) -> int:
        """How many bytes that is."""
        return self._received.tell()

    def write(self, chunk: bytes) -> None:
        """Adds what comes. Raises as `hold`."""
        self.hold(len(chunk))  # as it arrives: a size that is merely declared takes no memory
        self._received.write(chunk)

    def take(self) -> bytes:
        """Returns the body and keeps it no longer, but it still counts."""
        data, self._received = self.data, io.BytesIO()
        return data

    def text(self) -> str | bytes:
        """Returns the body as text, in the encoding that JSON's rules find, and keeps it no longer; bytes if it is not
        text."""
        data = self.take()
        try:
            return data.decode(json.detect_encoding(data), "surrogatepass")
        except UnicodeDecodeError:
            return data

    def release(self) -> None:
        """Keeps nothing, and counts no memory any longer."""
        self.take()  # an error may keep this body in its traceback for long
        super().release()


class Bodies:
    """Receives request bodies.

    Args:
        memory: For the bodies of all requests in progress, in bytes; what exceeds its caller's share is refused.
        timeout_s: Longest time for receiving a body, in seconds.
    """

    def __init__(self, memory: Shares, timeout_s: float) -> None:
        self._memory = memory
        self._timeout_s = timeout_s

    @contextlib.asynccontextmanager
    async def receive(self, request: Request, max_bytes: int) -> AsyncIterator[Body]:
        """Receives a body, whose memory counts until the context ends; if it fails, until the error is answered.

        Raises:
            Problem: BODY_TOO_LARGE, BODY_TOO_SLOW, CLIENT_LEFT, or TOO_MUCH_IN_PROGRESS.
        """
        body = Body(self._memory, holder_of(request.scope))
        try:
            slowest = self._slowest(request)
            try:
                await self._read(request, body, max_bytes, slowest)
            except TimeoutError as error:
                slow = f"not within {self._timeout_s:g} s, or at less than {slowest} bytes a second"
                raise _too_slow(slow, request, self._memory) from error
            except ClientDisconnect as error:
                raise Problem(499, "the client has left", "CLIENT_LEFT") from error
            except Problem:
                body.release()  # other requests can use the memory while the rest of the body arrives
                await _discard(request, self._timeout_s)
                raise
            yield body
        except BaseException:
            hold_failed(request.scope, body)
            raise
        finally:
            body.release()

    @contextlib.asynccontextmanager
    async def passing(self, request: Request) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        """Receives a body that is passed on: yields its chunks, each of which counts as memory until the next one is
        asked for. It may take as long as whoever asks, but the caller may not be slow. If the body of `with` fails,
        what is left of it is thrown away.

        Raises:
            Problem: BODY_TOO_SLOW, CLIENT_LEFT, or TOO_MUCH_IN_PROGRESS.
        """
        held = Held(self._memory, holder_of(request.scope))
        try:
            async with contextlib.aclosing(self._chunks(request, held)) as chunks:
                yield chunks
        except (Problem, MaskwireError) as error:
            held.release()
            if not isinstance(error, Problem) or error.reason not in ("BODY_TOO_SLOW", "CLIENT_LEFT"):
                await _discard(request, self._timeout_s)
            raise
        finally:
            held.release()

    async def _chunks(self, request: Request, held: Held) -> AsyncGenerator[bytes, None]:
        slowest = self._slowest(request)
        received, waited_s = 0, 0.0
        clock = asyncio.get_running_loop().time
        chunks = aiter(request.stream())
        while True:
            started = clock()
            try:
                async with asyncio.timeout(_GRACE_S + received / slowest - waited_s):
                    chunk = await anext(chunks, None)
            except TimeoutError as error:
                raise _too_slow(f"at less than {slowest} bytes a second", request, self._memory) from error
            except ClientDisconnect as error:
                raise Problem(499, "the client has left", "CLIENT_LEFT") from error
            if chunk is None:
                return
            waited_s += clock() - started
            received += len(chunk)
            with held.holding(len(chunk)):
                yield chunk

    def _slowest(self, request: Request) -> int:
        """The lowest rate at which a request's body may come, in bytes a second."""
        is_small = self._memory.is_small(holder_of(request.scope))
        return _SLOWEST_OF_SMALL_BYTES_PER_S if is_small else _SLOWEST_BYTES_PER_S

    async def _read(self, request: Request, body: Body, max_bytes: int, slowest: int) -> None:
        declared = request.headers.get("content-length", "0")
        size = int(declared) if declared.isdecimal() else 0
        received = 0
        too_large = Problem(413, f"the body is larger than {max_bytes} bytes", "BODY_TOO_LARGE")
        if size > max_bytes:
            raise too_large
        started = asyncio.get_running_loop().time()
        async with asyncio.timeout(min(self._timeout_s, _GRACE_S)) as limit:
            async for chunk in request.stream():
                received += len(chunk)
                if received > max_bytes:
                    raise too_large
                body.write(chunk)
                limit.reschedule(started + min(self._timeout_s, _GRACE_S + received / slowest))


def _too_slow(how: str, request: Request, memory: Shares) -> Problem:
    remedy = ", or the token as a header" if memory.is_small(holder_of(request.scope)) else ""
    said = f"the body came {how}; send it faster{remedy}"
    return Problem(408, said, "BODY_TOO_SLOW", more_headers={"Connection": "close"})


async def _discard(request: Request, timeout_s: float) -> None:
    """Reads the rest of a body without keeping it: many clients read no answer before they have sent everything."""
    if "expect" in request.headers:
        return
    with contextlib.suppress(ClientDisconnect, TimeoutError, RuntimeError, Problem):  # RuntimeError: it was read
        async with asyncio.timeout(timeout_s):
            async for _ in request.stream():
                pass
