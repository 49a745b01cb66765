"""Embeds the images that come next in a Label Studio project, so that the first click on each is warm, too."""

import asyncio
import logging
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Any

from maskwire import MaskwireError
from maskwire_core.http.problems import Problem

from maskwire_adapters.references import References
from maskwire_adapters.segmenter import Segmenter

log = logging.getLogger(__name__)

_RECENT_TASKS = 16  # of a project; more than people work in it at the same time
_PROJECTS = 1000
_EMBEDDED = 4096  # tasks whose images are known to be embedded, of all projects
_WAITING = 32  # clicks whose next tasks nobody has looked at yet; the oldest are forgotten
_AT_ONCE = 2


class Directions:
    """Which way people work through the tasks of projects.

    Several people may work in a project, each at a place of their own. So a task is compared with the one among the
    recent tasks whose id is nearest, not with the last one.
    """

    def __init__(self) -> None:
        self._recent: OrderedDict[int, deque[int]] = OrderedDict()

    def of(self, project: int, task: int) -> int | None:
        """Notes a click.

        Args:
            project: Number of the project.
            task: Number of the task.

        Returns:
            1 if work goes towards higher numbers, as at first; -1 if towards lower ones; None if the task was the last
            one that was clicked in.
        """
        recent = self._recent.setdefault(project, deque(maxlen=_RECENT_TASKS))
        self._recent.move_to_end(project)
        if len(self._recent) > _PROJECTS:
            self._recent.popitem(last=False)
        if recent and recent[0] == task:
            return None
        others = [other for other in recent if other != task]  # the newest first, which of equally near ones counts
        nearest = min(others, key=lambda other: abs(other - task), default=task - 1)
        if task in recent:
            recent.remove(task)
        recent.appendleft(task)
        return 1 if nearest < task else -1


@dataclass(frozen=True)
class _Click:
    project: int
    task: int
    direction: int
    value: str  # key of the image in a task's data


class Prewarming:
    """Embeds the next tasks of projects in the background, at low priority; a context manager for as long as it may.

    Whatever fails is logged and changes no answer: the image is then embedded at its first click.

    Args:
        segmenter: Embeds images.
        references: Lists tasks and reads their images.
        count: How many tasks ahead are embedded; 0: none.
    """

    def __init__(self, segmenter: Segmenter, references: References, count: int) -> None:
        self._segmenter = segmenter
        self._references = references
        self._count = count if references.lists_tasks else 0
        self._directions = Directions()
        self._waiting: deque[_Click] = deque(maxlen=_WAITING)
        self._more = asyncio.Semaphore(0)
        self._embedded: OrderedDict[tuple[int, int], None] = OrderedDict()
        self._workers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Prewarming":
        if self._count:
            self._workers = [asyncio.create_task(self._work()) for _ in range(_AT_ONCE)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    def clicked(self, project: str, task: Any, value: str) -> None:
        """Notes that somebody works on a task, whose image is embedded.

        Args:
            project: As Label Studio names it: its number, a full stop, and when it was made.
            task: Number of the task.
            value: Key of the image in a task's data.
        """
        number = project.partition(".")[0]
        if not self._count or not number.isdecimal() or not isinstance(task, int):
            return
        direction = self._directions.of(int(number), task)
        if direction is None:
            return
        self._note((int(number), task))
        self._waiting.append(_Click(int(number), task, direction, value))
        self._more.release()

    async def _work(self) -> None:
        while True:
            await self._more.acquire()
            if not self._waiting:  # forgotten
                continue
            click = self._waiting.pop()  # the newest: whoever clicked earlier may have gone on by now
            try:
                await self._embed_next(click)
            except (Problem, MaskwireError) as error:
                self._tell(click, error)
            except Exception:
                log.exception("the tasks beside task %d of project %d are not embedded", click.task, click.project)

    async def _embed_next(self, click: _Click) -> None:
        tasks = await self._references.next_tasks(click.project, click.task, click.direction, self._count)
        for task in tasks[: self._count]:
            key = click.project, int(task["id"])
            reference = task["data"].get(click.value)
            if key in self._embedded or not isinstance(reference, str) or not reference:
                continue
            field = f"tasks[{key[1]}].data.{click.value}"
            try:
                image = await self._references.read(reference, field)
                await self._segmenter.embed(image, field, bulk=True)
            except Problem as problem:  # of this image alone
                self._tell(click, problem)
            else:
                self._note(key)

    def _note(self, key: tuple[int, int]) -> None:
        self._embedded[key] = None
        self._embedded.move_to_end(key)
        if len(self._embedded) > _EMBEDDED:
            self._embedded.popitem(last=False)

    @staticmethod
    def _tell(click: _Click, error: Exception) -> None:
        log.warning("not all tasks beside task %d of project %d are embedded: %s", click.task, click.project, error)
