"""Requests of a session's socket that are answered in a region of its image."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from maskwire import InvalidRequest
from maskwire.regions import check_region
from maskwire.transport import Answer, Caller, Servers, Stream
from maskwire.v1 import decoder_pb2 as pb

from maskwire_gateway.rest.regions import segment_in_region


class RegionAnswers:
    """Answers in regions, as `POST /v1/images/{image_id}/segment` does, one after another: beside the stream, whose
    answers do not wait until a region is encoded.

    Args:
        servers: Encoders and decoders.
        caller: On whose behalf.
        before_asking: Awaited before each request; while it waits, no answer comes.
    """

    def __init__(self, servers: Servers, caller: Caller, before_asking: Callable[[], Awaitable[None]]) -> None:
        self._servers = servers
        self._caller = caller
        self._before_asking = before_asking
        self._image: tuple[str, Answer] | None = None  # namespace of the image that was set last, and the answer
        self._turn = asyncio.Lock()
        self._tasks = set[Answer]()

    def set_image(self, request: pb.SetImage, answer: Answer) -> None:
        """Has requests from now on be for the image of `set_image`, of which the stream's answer tells."""
        self._image = request.namespace, answer

    def ask(self, request: pb.SegmentStreamRequest, region: Any) -> Answer:
        """Answers prompts in a region, as the caller gave it. Raises what `segment_in_region` does, NO_IMAGE, and
        NOT_SPECULATIVE, by the future."""
        task = asyncio.ensure_future(self._answer(request, region, self._image))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def close(self) -> None:
        """Cancels what was not answered."""
        for task in list(self._tasks):
            task.cancel()

    async def _answer(
        self, request: pb.SegmentStreamRequest, region: Any, image: tuple[str, Answer] | None
    ) -> pb.SegmentStreamResponse:
        place = check_region(region)
        assert place is not None
        if request.speculative:
            said = "a request with a region is not superseded: leave speculative out, or set the region as the image"
            raise InvalidRequest(said, "NOT_SPECULATIVE", "speculative")
        async with self._turn:
            namespace, ready = image or ("", None)
            if ready is not None:
                await asyncio.wait({ready})
            if ready is None or ready.exception() is not None:
                raise InvalidRequest("no image is set; send set_image first", "NO_IMAGE", "segment")
            await self._before_asking()
            chosen, prompts = ready.result().image_ready.image, request.segment
            message = pb.SegmentRequest(
                image_id=chosen.image_id,
                namespace=namespace,
                content_key=chosen.content_key,
                prompts=prompts.prompts,
                output=prompts.output,
                save_logits=prompts.save_logits,
            )
            request.ClearField("segment")  # a mask may be large
            result = await segment_in_region(self._servers, message, place, self._caller)
            return pb.SegmentStreamResponse(result=result)


class SeenMasks:
    """Tells a stream how many of its masks were seen, of all masks that go over a socket.

    Args:
        stream: The stream.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._made = 0
        self._written = 0
        self._others = deque[int]()  # masks that are not the stream's, and that the caller may not have seen yet
        self._others_seen = 0
        self._caller_says = False

    def add(self, is_of_stream: bool) -> None:
        """Counts a mask that is going to be written."""
        self._made += 1
        if not is_of_stream:
            self._others.append(self._made)

    def written(self) -> None:
        """Counts a mask that was written: it is seen, for callers who never say how many they have seen."""
        self._written += 1
        if not self._caller_says:
            self._tell(self._written)

    def say(self, seen: int) -> None:
        """Takes how many masks the caller has seen."""
        self._caller_says = True
        self._tell(seen)

    def _tell(self, seen: int) -> None:
        while self._others and self._others[0] <= seen:
            self._others.popleft()
            self._others_seen += 1
        self._stream.acknowledge(seen - self._others_seen)
