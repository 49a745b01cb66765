"""A Track stream of a tracker, without gRPC's exceptions."""

import asyncio
import contextlib
from typing import Any

import grpc

from maskwire.errors import ServerUnavailable, from_rpc, from_status
from maskwire.transport.calls import Attempt
from maskwire.v1 import tracker_pb2 as pb
from maskwire.v1 import tracker_pb2_grpc


class TrackCall:
    """A stream on which a track is open, as `Servers.open_track` opens it.

    Attributes:
        opened: The answer to the first request.
    """

    def __init__(self, call: Any, opened: pb.TrackResponse) -> None:
        self.opened = opened
        self._call = call

    @classmethod
    async def begin(cls, attempt: Attempt, request: pb.TrackRequest) -> "TrackCall":
        """Opens a stream with its first request.

        Raises:
            MaskwireError: The tracker refuses it, or is about to stop.
            grpc.aio.AioRpcError: Likewise, or it cannot be reached.
        """
        call: Any = tracker_pb2_grpc.TrackerServiceStub(attempt.channel).Track(metadata=attempt.metadata)
        try:
            with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):  # read() says why
                await call.write(request)
            async with asyncio.timeout(attempt.left_s):
                answer = await call.read()
            if answer is grpc.aio.EOF or answer.HasField("reconnect"):
                raise ServerUnavailable("the tracker is about to stop")
            if answer.HasField("error"):
                raise from_status(answer.error)
        except BaseException:
            call.cancel()
            raise
        return cls(call, answer)

    async def write(self, request: pb.TrackRequest) -> bool:
        """Sends a request, when the tracker reads it. Returns False if the stream has ended: `read` says why."""
        try:
            await self._call.write(request)
        except (asyncio.InvalidStateError, grpc.aio.AioRpcError):
            return False
        return True

    async def read(self) -> pb.TrackResponse | None:
        """Returns the next answer; None at the end.

        Raises:
            MaskwireError: The stream ended with an error.
        """
        try:
            answer = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, "tracker") from error
        return None if answer is grpc.aio.EOF else answer

    async def done_writing(self) -> None:
        """Says that no more requests will come."""
        with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
            await self._call.done_writing()

    def cancel(self) -> None:
        """Ends the stream at once."""
        self._call.cancel()
