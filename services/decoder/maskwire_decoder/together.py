"""Threads that have the same kind of work get it done at once."""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Job(Generic[Item, Result]):
    def __init__(self, item: Item) -> None:
        self.item = item
        self.result: Result | None = None
        self.error: BaseException | None = None
        self.is_done = False


class Together(Generic[Item, Result]):
    """Collects what threads bring while work is under way, and works on all of one kind next; starts at once when idle.

    Kinds take turns in the order in which they first came.

    Args:
        work: Takes the kind and its items; gives a result for each, in order. One call at a time.
        most: Items of one call.
    """

    def __init__(self, work: Callable[[Hashable, Sequence[Item]], Sequence[Result]], most: int) -> None:
        self._work = work
        self._most = most
        self._changed = threading.Condition()
        self._waiting: OrderedDict[Hashable, deque[_Job[Item, Result]]] = OrderedDict()
        self._is_working = False

    def run(self, kind: Hashable, item: Item) -> Result:
        """The item's result. Raises what the work raised."""
        job: _Job[Item, Result] = _Job(item)
        with self._changed:
            self._waiting.setdefault(kind, deque()).append(job)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: job.is_done or not self._is_working)
                if job.is_done:
                    break
                self._is_working = True
                next_kind, jobs = self._next()
            # This thread works for all; its own item may come later, then it or another goes on.
            try:
                for each, result in zip(jobs, self._work(next_kind, [each.item for each in jobs]), strict=True):
                    each.result = result
            except BaseException as error:
                for each in jobs:
                    each.error = error
            with self._changed:
                self._is_working = False
                for each in jobs:
                    each.is_done = True
                self._changed.notify_all()
        if job.error is not None:
            raise job.error
        return job.result  # type: ignore[return-value]

    def _next(self) -> tuple[Hashable, list[_Job[Item, Result]]]:
        kind, jobs = self._waiting.popitem(last=False)
        taken = [jobs.popleft() for _ in range(min(self._most, len(jobs)))]
        if jobs:
            self._waiting[kind] = jobs  # behind the others
        return kind, taken
