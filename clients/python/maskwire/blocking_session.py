"""The blocking session: `AsyncSession` run on the background event loop."""

# Written by scripts/generate_blocking.py from session.py; change that, and run the script again.

import weakref
from collections.abc import Awaitable, Callable
from typing import Self, TypeVar, Unpack

from maskwire.arguments import checked
from maskwire.background import run_in_background, schedule
from maskwire.embedded_image import EmbeddedImage
from maskwire.image_arguments import ImageArguments
from maskwire.results import Result
from maskwire.session import AsyncSession
from maskwire.sources import ImageLike
from maskwire.v1 import decoder_pb2 as pb

T = TypeVar("T")


@checked
class Session:
    """Clicks on one image after another, with objects, undo and previews. Made by `Client.session`.

    Each method sends a request and returns its result, or None if there is no mask: the object has no prompts, or a
    later request superseded a preview. A wrong request raises InvalidRequest and changes nothing; the other errors are
    those of `Client.segment`.

    The session opens at its first use, and is closed by `with`, `close`, or with the client. Safe to use from several
    threads: a preview that waits in one thread returns None when another thread sends a later request.
    """

    def __init__(self, session: AsyncSession) -> None:
        self._session = session
        # A session that is garbage collected is closed silently.
        weakref.finalize(self, schedule, session.close).atexit = False

    def __repr__(self) -> str:
        return repr(self._session).replace("AsyncSession", "Session")

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the session."""
        run_in_background(self._session.close())

    @property
    def object_id(self) -> str:
        """Name of the object that clicks, boxes and undo apply to; set it to switch to another one."""
        return self._session.object_id

    @object_id.setter
    def object_id(self, object_id: str) -> None:
        self._session.object_id = object_id

    def open(self) -> None:
        """Returns when the image is ready for clicks. Other methods open the session themselves.

        Raises:
            MaskwireError: What `Client.segment` raises: there is no such image, no server answers, and so on.
        """
        return run_in_background(self._session.open())

    @property
    def image(self) -> pb.SegmentedImage:
        """The image's name, size and model; empty until the session is open."""
        return self._session.image

    def set_image(
        self, image: ImageLike | EmbeddedImage | None = None, **arguments: Unpack[ImageArguments]
    ) -> pb.SegmentedImage:
        """Continues with another image. All objects are forgotten.

        Args:
            image: A name, what `embed` returned, or a picture; as in `Client.segment`.
            **arguments: Which image: `ImageArguments`.

        Returns:
            The image's name, size and model, when it is ready for clicks.

        Raises:
            MaskwireError: What `Client.segment` raises. If there is no such image, the session has none until
                another one is set: clicks raise NO_IMAGE.
        """
        return run_in_background(self._session.set_image(image, **arguments))

    def new_object(self, object_id: str | None = None) -> str:
        """Begins an object and selects it. Returns its name: the given one, or object-1, object-2, ..."""
        return self._session.new_object(object_id)

    @property
    def objects(self) -> list[str]:
        """Names of the objects whose edits were answered. Set `object_id` to go on with one of them."""
        return self._session.objects

    def click(
        self, x: float, y: float, *, positive: bool = True, refine: bool | None = None, candidate: int = 0
    ) -> Result:
        """Adds a click inside the object, or outside of it; x and y in pixels of the image. Of the model's three
        candidates for a lone click, `candidate` takes the first, second or third (1 to 3) instead of the best (0).
        """
        return _answer(lambda: self._session.click(x, y, positive=positive, refine=refine, candidate=candidate))

    def remove_point(self, index: int, *, refine: bool | None = None) -> Result | None:
        """Removes a click: its index in the order in which they were made, from 0."""
        return _answer(lambda: self._session.remove_point(index, refine=refine))

    def box(self, x_min: float, y_min: float, x_max: float, y_max: float, *, refine: bool | None = None) -> Result:
        """Sets the object's box in pixels of the image, or replaces it."""
        return _answer(lambda: self._session.box(x_min, y_min, x_max, y_max, refine=refine))

    def clear(self) -> None:
        """Removes the object's clicks, box and mask. Can be undone."""
        return _answer(lambda: self._session.clear())

    def undo(self) -> Result | None:
        """Takes back the last step of the object: prompts and mask are what they were before."""
        return _answer(lambda: self._session.undo())

    def redo(self) -> Result | None:
        """Makes the step again that was undone last."""
        return _answer(lambda: self._session.redo())

    def remove_object(self, object_id: str | None = None) -> None:
        """Forgets an object, by default the current one, and its history."""
        return _answer(lambda: self._session.remove_object(object_id))

    def hover(self, x: float, y: float, *, positive: bool = True) -> Result | None:
        """The mask that a click would give; changes nothing. None if a later request superseded it."""
        return _answer(lambda: self._session.hover(x, y, positive=positive))

    def hover_box(self, x_min: float, y_min: float, x_max: float, y_max: float) -> Result | None:
        """The mask that a box would give, likewise."""
        return _answer(lambda: self._session.hover_box(x_min, y_min, x_max, y_max))

    @property
    def counters(self) -> dict[str, int]:
        """Prompts decoded for this session since its stream was opened, and previews superseded."""
        return self._session.counters


def _answer(send: Callable[[], Awaitable[T]]) -> T:
    """Sends a request on the background loop, and waits for its result."""

    async def ask() -> T:
        return await send()

    return run_in_background(ask())
