"""Edits of a session's objects, from the call to the answer."""

import asyncio
import contextlib
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from maskwire.errors import InvalidRequest, MaskwireError
from maskwire.history import History
from maskwire.results import Result
from maskwire.transport.stream_request import Answer, retrieved
from maskwire.v1 import decoder_pb2 as pb

Change = Callable[[History | None], History | None]
"""Makes an object's history from the one before; None stands for no object. Raises InvalidRequest if it cannot."""


@dataclass(eq=False)
class _Edit:
    objects: dict[str, History]  # of the image that was set when it was made
    object_id: str
    change: Change
    is_preview: bool


class Edits:
    """The objects on an image, and the edits of them that were not answered yet.

    An edit is sent at once, assuming that those before it succeed. One that fails changes nothing: edits that were sent
    on top of it are sent again without it.

    Args:
        ask: Sends an object's steps: its name, its history, and whether this is a preview.
        read: Makes a result of the answer, given the same.

    Attributes:
        objects: Histories by name, as the answered edits made them.
    """

    def __init__(
        self,
        ask: Callable[[str, History, bool], Answer],
        read: Callable[[pb.SegmentStreamResponse, str, History, bool], Result | None],
    ) -> None:
        self.objects: dict[str, History] = {}
        self._ask = ask
        self._read = read
        self._waiting: dict[_Edit, asyncio.Future[Any]] = {}

    def add(self, object_id: str, change: Change, is_preview: bool = False) -> "asyncio.Future[Any]":
        """Makes an edit, or previews it. Its future gives a Result, or None where there is no mask."""
        edit = _Edit(self.objects, object_id, change, is_preview)
        previous = next(reversed(self._waiting.values()), None)
        assumed = History()
        with contextlib.suppress(InvalidRequest):  # raised when it is known which edits before it succeed
            assumed = change(self._assume(object_id)) or assumed
        answer = None if assumed.is_empty else self._ask(object_id, assumed, is_preview)
        future = asyncio.ensure_future(self._settle(edit, previous, assumed, answer))
        future.add_done_callback(lambda _: self._waiting.pop(edit, None))
        future.add_done_callback(retrieved)
        if answer is not None:
            future.add_done_callback(lambda _: answer.cancel())  # does nothing if it has come
        self._waiting[edit] = future
        return future

    def names(self) -> set[str]:
        """Names of all objects on the image, including those whose edits were not answered yet."""
        return {*self.objects, *(edit.object_id for edit in self._waiting if edit.objects is self.objects)}

    def _assume(self, object_id: str) -> History | None:
        """An object's history if all edits that are possible succeed."""
        history = self.objects.get(object_id)
        for edit in self._waiting:
            if edit.objects is self.objects and edit.object_id == object_id and not edit.is_preview:
                with contextlib.suppress(InvalidRequest):
                    history = edit.change(history)
        return history

    def _is_superseded(self, preview: _Edit) -> bool:
        """Whether a later preview waits: asked again now, this one would take its place on the stream."""
        later = itertools.dropwhile(lambda edit: edit is not preview, self._waiting)
        return any(edit.is_preview for edit in later if edit is not preview)

    async def _settle(
        self, edit: _Edit, previous: "asyncio.Future[Any] | None", assumed: History, answer: Answer | None
    ) -> Result | None:
        if previous is not None:
            await asyncio.wait({previous})
        history = edit.change(edit.objects.get(edit.object_id))
        result = None
        if history is not None and not history.is_empty:
            if answer is not None:
                await asyncio.wait({answer})
            if answer is None or (history.steps != assumed.steps and _depends_on_steps(answer)):
                if edit.is_preview and self._is_superseded(edit):
                    del self._waiting[edit]
                    return None
                if edit.objects is not self.objects:
                    raise InvalidRequest("another image was set before this was answered", "IMAGE_CHANGED")
                answer = self._ask(edit.object_id, history, edit.is_preview)
            try:
                result = self._read(await answer, edit.object_id, history, edit.is_preview)
            except MaskwireError as error:
                error.field = _argument(error.field)
                raise
        del self._waiting[edit]
        if history is None:
            del edit.objects[edit.object_id]
        elif not edit.is_preview:
            edit.objects[edit.object_id] = history
        return result


def _depends_on_steps(answer: Answer) -> bool:
    """Whether other steps might be answered otherwise; not where the decoder was busy or out of reach."""
    return answer.exception() is None or isinstance(answer.exception(), InvalidRequest)


def _argument(field: str) -> str:
    """What a field of a step is called by callers of `click` and `box`, such as x for "steps[2].add_point.x_px"."""
    in_a_step = re.search(r"steps\[\d+\].*?(?:\.(?:add_|set_)?(\w+?)(?:_px)?)?$", field)
    return in_a_step[1] or "" if in_a_step else field
