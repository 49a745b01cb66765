"""Interactive sessions: objects that are clicked into shape."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

from google.protobuf.empty_pb2 import Empty

from maskwire.arguments import checked
from maskwire.connection import Connection, Wanted
from maskwire.errors import ImageNotFound
from maskwire.pictures import Channels, Stretch
from maskwire.prompts import Format, Prompt, wait_ms
from maskwire.replay import Replay
from maskwire.results import EmbeddedImage, Result
from maskwire.sources import DEFAULT_READING, ImageLike, Reading
from maskwire.transport.stream import Stream
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


@checked
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

    It opens at its first use; `async with`, or `close`, ends it, and so does closing the client.

    Attributes:
        object_id: Name of the object that clicks, boxes and undo are for.
    """

    def __init__(
        self,
        connection: Connection,
        image: ImageLike | EmbeddedImage | None,
        image_id: str | None,
        model: str,
        wait_s: float,
        output: tuple[types_pb2.OutputOptions, tuple[Format, ...]],
        reading: Reading = DEFAULT_READING,
    ) -> None:
        self.object_id = "object-1"
        self._connection = connection
        self._wanted = (image, image_id, model, wait_ms(wait_s), reading)
        self._output, self._forms = output
        self._replay = Replay(pb.SetImage())
        self._followers: list[Masks] = []
        self._stream = Stream(
            connection.servers.decoders,
            connection.caller,
            prepare=self._prepare,
            opening=self._replay.opening,
            recover=self._embed_again,
            answered=self._answered,
        )
        self._named: Wanted | None = None
        connection.closes_with(self)

    def __repr__(self) -> str:
        if not self._replay.image.image_id:
            return f"<{type(self).__name__}, not open yet>"
        image = self._replay.image
        return (
            f"<{type(self).__name__} on {image.image_id!r}, {image.width_px}x{image.height_px}, {image.model}; "
            f"{len(self.objects)} object{'' if len(self.objects) == 1 else 's'}>"
        )

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Returns when the image is ready for clicks. Other methods open the session themselves.

        Raises:
            MaskwireError: What `AsyncClient.segment` raises: there is no such image, nobody answers, and so on.
        """
        self._connection.check()
        if not self._replay.image.image_id:
            await self._stream.open()

    async def close(self) -> None:
        """Ends the session. What was not answered yet fails."""
        await self._stream.close()
        for follower in self._followers:
            follower.close()

    # Images and objects

    @property
    def image(self) -> pb.SegmentedImage:
        """The image's name, size and model; empty until the session is open."""
        return self._replay.image

    async def set_image(
        self,
        image: ImageLike | EmbeddedImage | None = None,
        *,
        image_id: str | None = None,
        model: str = "",
        wait_s: float = 0,
        channels: Channels = "rgb",
        stretch: Stretch = "auto",
    ) -> pb.SegmentedImage:
        """Goes on with another image; all objects are forgotten.

        Args:
            image: A name, what `embed` returned, or a picture; as in `AsyncClient.segment`.
            image_id: Name of a stored image; together with a picture, the name to embed it under.
            model: Name of the model that must have embedded the image; empty for any.
            wait_s: How long to wait for an image that somebody else is embedding, in seconds, at most 60.
            channels: Order of an array's colours: "rgb", or "bgr" for what OpenCV's imread returns.
            stretch: How a picture's samples are mapped to 8 bits: "auto", "none", "range" or "percentile".

        Returns:
            The image's name, size and model, when it is ready for clicks.

        Raises:
            MaskwireError: What `AsyncClient.segment` raises; the session then stays with the image that it had.
        """
        wanted = (image, image_id, model, wait_ms(wait_s), Reading(channels, stretch))
        if not self._replay.image.image_id:
            self._wanted, self._named = wanted, None
            await self.open()
            return self.image
        named, message = await self._name(*wanted)
        try:
            await self._stream.send(pb.SegmentStreamRequest(set_image=message))
        except ImageNotFound as error:
            raise named.not_found(error) from error
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

    async def _prepare(self) -> None:
        """Finds out which image the first stream begins with."""
        if self._named is None:
            self._named, self._replay.set_image = await self._name(*self._wanted)

    async def _name(
        self,
        image: ImageLike | EmbeddedImage | None,
        image_id: str | None,
        model: str,
        waiting_ms: int,
        reading: Reading,
    ) -> tuple[Wanted, pb.SetImage]:
        wanted = await self._connection.resolve(image, image_id, model, reading)
        return wanted, pb.SetImage(
            image_id=wanted.image_id,
            namespace=self._connection.caller.namespace,
            wait_ms=waiting_ms,
            content_key=wanted.stored.content_key if wanted.stored is not None else "",
            model=model,
        )

    async def _embed_again(self) -> bool:
        wanted = self._replay.set_image
        source = self._connection.images.source(wanted.image_id, wanted.content_key or None)
        if source is None:
            if self._named is not None and self._named.may_be_path and self._named.image_id == wanted.image_id:
                raise self._named.not_found(ImageNotFound("", "IMAGE_NOT_FOUND"))
            return False
        model = wanted.model or self._connection.images.model(wanted.image_id)
        stored = await self._connection.embed(source, wanted.image_id, model)
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
            source=self._connection.images.source(self.image.image_id, self.image.content_key),
            fetch=None,
            is_preview=request.speculative,
        )
        for follower in self._followers:
            follower.add(result)
        return result


def _point(x: float, y: float, positive: bool) -> types_pb2.Point:
    return Prompt(points=[(x, y)], labels=[int(positive)]).message().points[0]
