"""Interactive sessions: objects that are segmented click by click."""

import asyncio
import weakref
from typing import Any, Self, Unpack

from google.protobuf.empty_pb2 import Empty

from maskwire.arguments import checked
from maskwire.connection import Connection
from maskwire.edits import Change, Edits
from maskwire.embedded_image import EmbeddedImage
from maskwire.errors import ImageNotFound, InvalidRequest, MaskwireError, bad_answer
from maskwire.history import History
from maskwire.image_arguments import AskedImage, ImageArguments
from maskwire.mask_iterator import Masks
from maskwire.output_options import Output
from maskwire.prompts import Prompt
from maskwire.results import Result
from maskwire.sharpening import Sharpener
from maskwire.sources import ImageLike
from maskwire.transport.stream import Stream
from maskwire.transport.stream_request import Answer
from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import types_pb2
from maskwire.wanted_image import Wanted


@checked
class AsyncSession:
    """Clicks on one image after another, with objects, undo and previews. Made by `AsyncClient.session`.

    Each method sends its request at once and returns a future of its answer; requests are answered in the order of the
    calls. Await the future, or follow `masks()`. An answer is None where there is no mask: the object has no prompts,
    or a later request superseded a preview. Futures raise `InvalidRequest` for a wrong request, and otherwise what
    `AsyncClient.segment` raises; a request that fails changes nothing.

    A mask is decoded from all prompts of the object and from the logits of its previous mask, as in SAM 2's interactive
    use. Without those logits after a step that takes something away (`remove_point`, another box), since they still
    show it; `refine` overrules either. A lone first click gives the best of the model's three candidates, everything
    else its single mask, unless the session was made with `multimask`.

    The session itself holds the objects, each as the list of its steps, and sends them with each request. If the
    decoder stops or dies, another one takes over and returns the same masks.

    A session opens at its first use. `async with`, `close`, or closing the client ends it.

    Attributes:
        object_id: Name of the object that clicks, boxes and undo apply to.
    """

    def __init__(self, connection: Connection, asked: AskedImage, output: Output) -> None:
        self.object_id = "object-1"
        self._connection = connection
        self._asked = asked
        self._wanted: Wanted | None = None
        options, self._forms = output
        self._step = types_pb2.Step()  # what all steps have in common
        if options.HasField("multimask"):
            self._step.multimask = options.multimask
            options.ClearField("multimask")
        self._output = options
        multimask = self._step.multimask if self._step.HasField("multimask") else None
        self._sharpener = Sharpener(connection, options, multimask)
        self._followers: weakref.WeakSet[Masks] = weakref.WeakSet()
        self._stream = Stream(
            connection.servers.decoders,
            connection.caller,
            first_image=self._find_image,
            embed_again=self._embed_again,
        )
        self._edits = Edits(self._ask, self._read)
        connection.closes_with(self)

    def __repr__(self) -> str:
        if not self.image.image_id:
            return f"<{type(self).__name__}, not open yet>"
        return (
            f"<{type(self).__name__} on {self.image.image_id!r}, {self.image.width_px}x{self.image.height_px}, "
            f"{self.image.model}; {len(self.objects)} object{'' if len(self.objects) == 1 else 's'}>"
        )

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Returns when the image is ready for clicks. Other methods open the session themselves.

        Raises:
            MaskwireError: What `AsyncClient.segment` raises: there is no such image, no server answers, and so on.
        """
        self._stream.check()
        if not self.image.image_id:
            await self._send_image()

    async def close(self) -> None:
        """Ends the session. Requests that were not answered fail."""
        await self._stream.close()
        for follower in self._followers:
            follower.close()

    # Images and objects

    @property
    def image(self) -> pb.SegmentedImage:
        """The image's name, size and model; empty until the session is open."""
        return self._stream.image

    async def set_image(
        self,
        image: ImageLike | EmbeddedImage | None = None,
        **arguments: Unpack[ImageArguments],
    ) -> pb.SegmentedImage:
        """Continues with another image. All objects are forgotten.

        Args:
            image: A name, what `embed` returned, or a picture; as in `AsyncClient.segment`.
            **arguments: Which image: `ImageArguments`.

        Returns:
            The image's name, size and model, when it is ready for clicks.

        Raises:
            MaskwireError: What `AsyncClient.segment` raises. If there is no such image, the session has none until
                another one is set: clicks raise NO_IMAGE.
        """
        self._stream.check()
        asked = AskedImage.of(image, arguments)
        self._wanted = await self._resolve(asked)
        self._asked, self._edits.objects = asked, {}
        await self._send_image()
        return self.image

    def new_object(self, object_id: str | None = None) -> str:
        """Begins an object and selects it. Returns its name: the given one, or object-1, object-2, ..."""
        self._stream.check()
        taken, number = self._edits.names() | {self.object_id}, len(self.objects) + 1
        while object_id is None:
            name = f"object-{number}"
            object_id = None if name in taken else name
            number += 1
        self.object_id = object_id
        return object_id

    @property
    def objects(self) -> list[str]:
        """Names of the objects whose edits were answered. Set `object_id` to go on with one of them."""
        return list(self._edits.objects)

    # Edits of the object

    def click(
        self, x: float, y: float, *, positive: bool = True, refine: bool | None = None, candidate: int = 0
    ) -> "asyncio.Future[Result]":
        """Adds a click inside the object, or outside of it; x and y in pixels of the image. Of the model's three
        candidates for a lone click, `candidate` takes the first, second or third (1 to 3) instead of the best (0)."""
        return self._add(types_pb2.Step(add_point=_point(x, y, positive), candidate=candidate), refine)

    def remove_point(self, index: int, *, refine: bool | None = None) -> "asyncio.Future[Result | None]":
        """Removes a click: its index in the order in which they were made, from 0."""
        return self._add(types_pb2.Step(remove_point=index), refine, begins=False)

    def box(
        self, x_min: float, y_min: float, x_max: float, y_max: float, *, refine: bool | None = None
    ) -> "asyncio.Future[Result]":
        """Sets the object's box in pixels of the image, or replaces it."""
        return self._add(types_pb2.Step(set_box=_box(x_min, y_min, x_max, y_max)), refine)

    def clear(self) -> "asyncio.Future[None]":
        """Removes the object's clicks, box and mask. Can be undone."""
        return self._add(types_pb2.Step(clear=Empty()), begins=False)

    def undo(self) -> "asyncio.Future[Result | None]":
        """Takes back the last step of the object: prompts and mask are what they were before."""
        object_id = self.object_id
        return self._edit(object_id, lambda history: _existing(history, object_id).undo())

    def redo(self) -> "asyncio.Future[Result | None]":
        """Makes the step again that was undone last."""
        object_id = self.object_id
        return self._edit(object_id, lambda history: _existing(history, object_id).redo())

    def remove_object(self, object_id: str | None = None) -> "asyncio.Future[None]":
        """Forgets an object, by default the current one, and its history."""
        removed = object_id or self.object_id

        def change(history: History | None) -> None:
            _existing(history, removed)

        return self._edit(removed, change)

    # Previews

    def hover(self, x: float, y: float, *, positive: bool = True) -> "asyncio.Future[Result | None]":
        """The mask that a click would give; changes nothing. None if a later request superseded it."""
        return self._add(types_pb2.Step(add_point=_point(x, y, positive)), is_preview=True)

    def hover_box(self, x_min: float, y_min: float, x_max: float, y_max: float) -> "asyncio.Future[Result | None]":
        """The mask that a box would give, likewise."""
        return self._add(types_pb2.Step(set_box=_box(x_min, y_min, x_max, y_max)), is_preview=True)

    def masks(self) -> Masks:
        """All masks from now on, in order; of previews that were not consumed yet, only the newest.

        Iterate over it with `async for`; it ends with the session.
        """
        self._stream.check()
        follower = Masks()
        self._followers.add(follower)
        return follower

    @property
    def counters(self) -> dict[str, int]:
        """Prompts decoded for this session since its stream was opened, and previews superseded."""
        return {"decodes": self._stream.counters.decodes, "superseded": self._stream.counters.superseded}

    # Requests and answers

    def _add(
        self, step: types_pb2.Step, refine: bool | None = None, is_preview: bool = False, begins: bool = True
    ) -> "asyncio.Future[Any]":
        """Adds a step to the current object, which it may begin."""
        if refine is not None:
            step.refine = refine
        step.MergeFrom(self._step)
        object_id = self.object_id

        def change(history: History | None) -> History:
            return (history or History() if begins else _existing(history, object_id)).add(step)

        return self._edit(object_id, change, is_preview)

    def _edit(self, object_id: str, change: Change, is_preview: bool = False) -> "asyncio.Future[Any]":
        self._stream.check()
        return self._edits.add(object_id, change, is_preview)

    def _ask(self, object_id: str, history: History, is_preview: bool) -> Answer:
        prompt = types_pb2.Prompt(prompt_id=object_id, steps=history.steps)
        segment = pb.StreamPrompts(prompts=[prompt], output=self._output)
        answer = self._stream.send(pb.SegmentStreamRequest(segment=segment, speculative=is_preview))
        if self._asked.region != "auto" or is_preview:
            return answer
        return asyncio.ensure_future(self._sharpened(answer, object_id, history))

    async def _sharpened(self, answer: Answer, object_id: str, history: History) -> pb.SegmentStreamResponse:
        """Answers in a region around the object, instead of in the whole image, unless another image was set."""
        response = await answer
        image = self._wanted
        if not response.HasField("result") or image is None or image.content_key != response.result.image.content_key:
            return response
        sharp = await self._sharpener.sharpen(image, object_id, history)
        return response if sharp is None else pb.SegmentStreamResponse(result=sharp)

    def _read(
        self, response: pb.SegmentStreamResponse, object_id: str, history: History, is_preview: bool
    ) -> Result | None:
        if not response.HasField("result"):
            return None
        image = response.result.image
        if len(response.result.results) != 1:
            raise bad_answer(f"{len(response.result.results)} results for an object")
        result = Result(
            response.result.results[0],
            response=response.result,
            prompt=history.prompt(object_id),
            forms=self._forms,
            cached=True,
            source=self._connection.images.source(image.image_id, image.content_key),
            fetch=None,
            known_size=self._size_of(image.content_key),
            is_preview=is_preview,
        )
        for follower in self._followers:
            follower.add(result)
        return result

    def _size_of(self, content_key: str) -> tuple[int, int] | None:
        """Returns the size of the session's image, if an answer is about that; None if it is not known."""
        wanted = self._wanted
        images = [] if wanted is None else [wanted.stored, wanted.region]
        is_known = any(each is not None and each.content_key == content_key for each in images)
        return wanted.size if wanted is not None and is_known else None

    async def _send_image(self) -> None:
        message = await self._find_image()
        try:
            await self._stream.send(pb.SegmentStreamRequest(set_image=message))
        except ImageNotFound as error:
            raise self._not_found(message.image_id, error) from error

    def _not_found(self, image_id: str, error: ImageNotFound) -> MaskwireError:
        wanted = self._wanted
        return wanted.not_found(error) if wanted is not None and wanted.image_id == image_id else error

    async def _find_image(self) -> pb.SetImage:
        if self._wanted is None:
            self._wanted = await self._resolve(self._asked)
        return pb.SetImage(
            image_id=self._wanted.image_id,
            namespace=self._connection.caller.namespace,
            wait_ms=self._asked.wait_ms,
            content_key=self._wanted.content_key,
            model=self._wanted.model,
        )

    async def _resolve(self, asked: AskedImage) -> Wanted:
        if asked.region != "auto":
            return await self._connection.resolve(asked)
        return await self._connection.described(await self._connection.resolve_image(asked))

    async def _embed_again(self, lost: pb.SetImage, error: ImageNotFound) -> str:
        if self._wanted is not None and lost.content_key == self._wanted.content_key:
            return await self._connection.embed_again(self._wanted, error)
        memory = self._connection.images
        source = memory.source(lost.image_id, lost.content_key or None)
        if source is None:
            raise self._not_found(lost.image_id, error)
        model = lost.model or memory.model(lost.image_id)
        return (await self._connection.embed(source, lost.image_id, model)).content_key


def _point(x: float, y: float, positive: bool) -> types_pb2.Point:
    return Prompt(points=[(x, y)], labels=[int(positive)]).message().points[0]


def _box(x_min: float, y_min: float, x_max: float, y_max: float) -> types_pb2.Box:
    return Prompt(box=(x_min, y_min, x_max, y_max)).message().box


def _existing(history: History | None, object_id: str) -> History:
    if history is None:
        raise InvalidRequest(f"there is no object {object_id!r}", "NO_OBJECT", "object_id")
    return history
