"""Interactive sessions: objects that are clicked into shape."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

from google.protobuf.empty_pb2 import Empty

from maskwire.connection import Connection
from maskwire.pictures import Channels, Stretch
from maskwire.prompts import OutputArguments, Prompt, output_options, wait_ms
from maskwire.replay import Replay
from maskwire.results import Result
from maskwire.sources import DEFAULT_READING, ImageLike, Reading
from maskwire.streams import Stream
from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import types_pb2


class Masks:
    """The masks of a session as they come; of previews that wait to be looked at, only the newest."""

    def __init__(self) -> None:
        self._waiting: deque[Result] = deque()
        self._news = asyncio.Event()
        self._closed = False

    def __aiter__(self) -> AsyncIterator[Result]:
        return self

    async def __anext__(self) -> Result:
        while not self._waiting:
            if self._closed:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._waiting.popleft()

    def add(self, result: Result) -> None:
        if self._waiting and self._waiting[-1].is_preview:
            self._waiting.pop()
        self._waiting.append(result)
        self._news.set()

    def close(self) -> None:
        self._closed = True
        self._news.set()


class AsyncSession:
    """Clicks on one image after another, with objects, undo and previews. Made by `AsyncClient.session`.

    Each method sends its request at once and gives a future of its answer; requests are answered in the order of the
    calls. Await it, or follow `masks()`. An answer is None where there is no mask: the object has no prompts, or a
    later request superseded a preview. Futures raise `InvalidRequest` for a wrong request, which changes nothing, and
    otherwise what `AsyncClient.segment` raises.

    Masks are decoded from all prompts of the object and from the logits of its mask before, as SAM 2's interactive use
    feeds them back; what takes something away (`remove_point`, another box) is decoded without them. `refine` overrules
    either. A lone first click gives the best of the model's three candidates, everything else its single mask, unless
    the session was made with `multimask`.

    When the decoder dies or stops, the session goes on with another one by itself: image, objects, their history and
    the requests that were not answered yet are sent again, and masks are what they would have been.

    Attributes:
        object_id: Name of the object that clicks, boxes and undo are for.
    """

    def __init__(
        self,
        connection: Connection,
        image: ImageLike | None,
        image_id: str | None,
        wait_s: float,
        output: OutputArguments,
        reading: Reading = DEFAULT_READING,
    ) -> None:
        self.object_id = "object-1"
        self._connection = connection
        self._wanted = (image, image_id, wait_s, reading)
        self._output, self._forms = output_options(output)
        if "multimask" not in output:
            self._output.ClearField("multimask")
        self._replay = Replay(pb.SetImage())
        self._followers: list[Masks] = []
        self._stream = Stream(
            connection.decoders,
            connection.timeout_s,
            connection.retry_s,
            opening=self._replay.opening,
            recover=self._embed_again,
            answered=self._answered,
        )

    async def __aenter__(self) -> Self:
        self._replay.set_image = await self._name(*self._wanted)
        await self._stream.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the session. What was not answered yet fails."""
        await self._stream.close()
        for follower in self._followers:
            follower.close()

    # Images and objects

    @property
    def image(self) -> pb.SegmentedImage:
        """The image's name, size and model."""
        return self._replay.image

    async def set_image(
        self,
        image: ImageLike | None = None,
        *,
        image_id: str | None = None,
        wait_s: float = 0,
        channels: Channels = "rgb",
        stretch: Stretch = "auto",
    ) -> pb.SegmentedImage:
        """Goes on with another image, named or given as in `AsyncClient.segment`; all objects are forgotten.

        Returns:
            Its name, size and model, when it is ready for clicks.
        """
        message = await self._name(image, image_id, wait_s, Reading(channels, stretch))
        await self._stream.send(pb.SegmentStreamRequest(set_image=message))
        return self.image

    def new_object(self, object_id: str | None = None) -> str:
        """Begins an object; what follows is for it. Returns its name: the given one, or object-1, object-2, ..."""
        number = len(self._replay.histories) + 1
        while object_id is None:
            name = f"object-{number}"
            object_id = None if name in self._replay.histories or name == self.object_id else name
            number += 1
        self.object_id = object_id
        return object_id

    @property
    def objects(self) -> list[str]:
        """Names of the objects whose changes were answered. Set `object_id` to go on with one."""
        return list(self._replay.histories)

    # Changes of the object

    def click(
        self, x: float, y: float, *, positive: bool = True, refine: bool | None = None
    ) -> "asyncio.Future[Result]":
        """Adds a click inside of the object, or outside of it; x and y in pixels of the image."""
        return self._edit(pb.EditObject(add_point=_point(x, y, positive)), refine)

    def remove_point(self, index: int, *, refine: bool | None = None) -> "asyncio.Future[Result | None]":
        """Takes a click away: its index in the order in which they were made, from 0."""
        return self._edit(pb.EditObject(remove_point=index), refine)

    def box(
        self, x_min: float, y_min: float, x_max: float, y_max: float, *, refine: bool | None = None
    ) -> "asyncio.Future[Result]":
        """Sets the object's box in pixels of the image, or replaces it."""
        return self._edit(pb.EditObject(set_box=Prompt(box=(x_min, y_min, x_max, y_max)).message().box), refine)

    def clear(self) -> "asyncio.Future[None]":
        """Removes the object's clicks, box and mask. Can be undone."""
        return self._edit(pb.EditObject(clear=Empty()))

    def undo(self) -> "asyncio.Future[Result | None]":
        """Takes the last change of the object back: prompts and mask are what they were before."""
        return self._edit(pb.EditObject(undo=Empty()))

    def redo(self) -> "asyncio.Future[Result | None]":
        """Makes the change that was taken back last again."""
        return self._edit(pb.EditObject(redo=Empty()))

    def remove_object(self, object_id: str | None = None) -> "asyncio.Future[None]":
        """Forgets an object, by default the current one, and its history."""
        return self._edit(pb.EditObject(object_id=object_id or self.object_id, remove=Empty()))

    # Previews

    def hover(self, x: float, y: float, *, positive: bool = True) -> "asyncio.Future[Result | None]":
        """The mask that a click would give; changes nothing. None if a later request has superseded it."""
        return self._edit(pb.EditObject(add_point=_point(x, y, positive)), speculative=True)

    def hover_box(self, x_min: float, y_min: float, x_max: float, y_max: float) -> "asyncio.Future[Result | None]":
        """The mask that a box would give, likewise."""
        box = Prompt(box=(x_min, y_min, x_max, y_max)).message().box
        return self._edit(pb.EditObject(set_box=box), speculative=True)

    def masks(self) -> Masks:
        """All masks that come from now on, in order; of previews that wait to be looked at, only the newest.

        Iterate over it with `async for`; it ends with the session.
        """
        self._followers.append(Masks())
        return self._followers[-1]

    @property
    def counters(self) -> dict[str, int]:
        """Prompts decoded for this session since its stream was opened, and previews superseded."""
        return {"decodes": self._stream.counters.decodes, "superseded": self._stream.counters.superseded}

    # Requests and answers

    def _edit(
        self, edit: pb.EditObject, refine: bool | None = None, speculative: bool = False
    ) -> "asyncio.Future[Any]":
        edit.object_id = edit.object_id or self.object_id
        edit.output.CopyFrom(self._output)
        if refine is not None:
            edit.refine = refine
        return self._stream.send(pb.SegmentStreamRequest(edit=edit, speculative=speculative))

    async def _name(
        self, image: ImageLike | None, image_id: str | None, wait_s: float, reading: Reading
    ) -> pb.SetImage:
        name, stored, _ = await self._connection.resolve(image, image_id, reading)
        return pb.SetImage(
            image_id=name,
            namespace=self._connection.namespace,
            wait_ms=wait_ms(wait_s),
            content_key=stored.content_key if stored is not None else "",
        )

    async def _embed_again(self) -> bool:
        wanted = self._replay.set_image
        source = self._connection.memory.source(wanted.image_id, wanted.content_key or None)
        if source is None:
            return False
        stored = await self._connection.embed(source, wanted.image_id)
        wanted.content_key = stored.content_key
        return True

    def _answered(self, request: pb.SegmentStreamRequest, response: pb.SegmentStreamResponse) -> Result | None:
        self._replay.note(request, response)
        if not response.object.result.results:
            return None
        result = Result(
            response.object.result.results[0],
            response=response.object.result,
            prompt=response.object.prompt,
            forms=self._forms,
            cached=True,
            source=self._connection.memory.source(self.image.image_id, self.image.content_key),
            fetch=None,
            is_preview=request.speculative,
        )
        for follower in self._followers:
            follower.add(result)
        return result


def _point(x: float, y: float, positive: bool) -> types_pb2.Point:
    return Prompt(points=[(x, y)], labels=[int(positive)]).message().points[0]
