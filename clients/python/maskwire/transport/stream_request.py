"""A request on a stream, from the call to the answer."""

import asyncio
from typing import Any

from maskwire.errors import DeadlineExceeded, MaskwireError
from maskwire.transport.losses import Losses
from maskwire.v1 import decoder_pb2 as pb

Answer = asyncio.Future[pb.SegmentStreamResponse]


class StreamRequest:
    """A request and the future of its answer.

    Attributes:
        message: What is sent.
        answer: What the caller waits for, or has given up by cancelling it.
        sends: How many streams it was sent on.
        stream: Number of the stream on which it was sent last.
        losses: The servers that were lost while they had it.
    """

    def __init__(self, message: pb.SegmentStreamRequest) -> None:
        self.message = message
        self.answer: Answer = asyncio.get_running_loop().create_future()
        self.answer.add_done_callback(retrieved)
        self.sends = 0
        self.stream = -1
        self.losses = Losses()

    @property
    def sets_image(self) -> bool:
        """Whether the requests after it are for the image in it."""
        return self.message.HasField("set_image")

    def expire_after(self, timeout_s: float) -> None:
        """Ends it with DeadlineExceeded if there is no answer after some seconds."""
        error = DeadlineExceeded(f"the decoder gave no answer within {timeout_s:g} s")
        timer = asyncio.get_running_loop().call_later(timeout_s, self.end, error)
        self.answer.add_done_callback(lambda _: timer.cancel())

    def end(self, outcome: pb.SegmentStreamResponse | MaskwireError) -> None:
        """Gives the caller an answer or an error, unless there is one already."""
        if self.answer.done():
            return
        if isinstance(outcome, MaskwireError):
            self.answer.set_exception(outcome)
        else:
            self.answer.set_result(outcome)


def retrieved(answer: "asyncio.Future[Any]") -> None:
    """Marks a future's exception as retrieved, since callers that only follow `masks()` do not await each answer."""
    if not answer.cancelled():
        answer.exception()
