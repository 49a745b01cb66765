"""The blocking session: `AsyncSession` run on the background event loop."""

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, TypeVar

from maskwire.background import run
from maskwire.pictures import Channels, Stretch
from maskwire.results import Result
from maskwire.session import AsyncSession
from maskwire.sources import ImageLike
from maskwire.v1 import decoder_pb2

T = TypeVar("T")


class Session:
    """Clicks on one image after another; see `AsyncSession`, whose methods these are. Each returns with its answer.

    Safe to use from several threads: a preview that waits in one returns None when another sends a later request.
    """

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    def __enter__(self) -> Self:
        run(self._session.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the session."""
        run(self._session.close())

    @property
    def image(self) -> decoder_pb2.SegmentedImage:
        """The image's name, size and model."""
        return self._session.image

    @property
    def object_id(self) -> str:
        """Name of the object that clicks, boxes and undo are for; set it to go on with another."""
        return self._session.object_id

    @object_id.setter
    def object_id(self, object_id: str) -> None:
        self._session.object_id = object_id

    @property
    def objects(self) -> list[str]:
        """Names of the objects."""
        return self._session.objects

    @property
    def counters(self) -> dict[str, int]:
        """See `AsyncSession.counters`."""
        return self._session.counters

    def set_image(
        self,
        image: ImageLike | None = None,
        *,
        image_id: str | None = None,
        wait_s: float = 0,
        channels: Channels = "rgb",
        stretch: Stretch = "auto",
    ) -> decoder_pb2.SegmentedImage:
        """Goes on with another image; see `AsyncSession.set_image`."""
        return run(self._session.set_image(image, image_id=image_id, wait_s=wait_s, channels=channels, stretch=stretch))

    def new_object(self, object_id: str | None = None) -> str:
        """Begins an object; see `AsyncSession.new_object`."""
        return self._session.new_object(object_id)

    def click(self, x: float, y: float, *, positive: bool = True, refine: bool | None = None) -> Result:
        """Adds a click inside of the object, or outside of it, in pixels of the image."""
        return _answer(lambda: self._session.click(x, y, positive=positive, refine=refine))

    def remove_point(self, index: int, *, refine: bool | None = None) -> Result | None:
        """Takes a click away: its index in the order in which they were made, from 0."""
        return _answer(lambda: self._session.remove_point(index, refine=refine))

    def box(self, x_min: float, y_min: float, x_max: float, y_max: float, *, refine: bool | None = None) -> Result:
        """Sets the object's box in pixels of the image, or replaces it."""
        return _answer(lambda: self._session.box(x_min, y_min, x_max, y_max, refine=refine))

    def clear(self) -> None:
        """Removes the object's clicks, box and mask. Can be undone."""
        _answer(self._session.clear)

    def undo(self) -> Result | None:
        """Takes the last change of the object back. None if it has no prompts any more."""
        return _answer(self._session.undo)

    def redo(self) -> Result | None:
        """Makes the change that was taken back last again."""
        return _answer(self._session.redo)

    def remove_object(self, object_id: str | None = None) -> None:
        """Forgets an object, by default the current one, and its history."""
        _answer(lambda: self._session.remove_object(object_id))

    def hover(self, x: float, y: float, *, positive: bool = True) -> Result | None:
        """The mask that a click would give; changes nothing. None if superseded."""
        return _answer(lambda: self._session.hover(x, y, positive=positive))

    def hover_box(self, x_min: float, y_min: float, x_max: float, y_max: float) -> Result | None:
        """The mask that a box would give, likewise."""
        return _answer(lambda: self._session.hover_box(x_min, y_min, x_max, y_max))


def _answer(send: Callable[[], Awaitable[T]]) -> T:
    """Sends a request on the background loop, and waits for its answer."""

    async def ask() -> T:
        return await send()

    return run(ask())
