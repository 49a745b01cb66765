"""Which tasks are embedded ahead: those in the direction of work, a few, and none twice."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from maskwire import Overloaded
from maskwire_adapters.prewarming import Directions, Prewarming
from maskwire_core.http.problems import Problem


@pytest.mark.parametrize(
    ("clicks", "directions"),
    [
        ([7, 8, 9], [1, 1, 1]),
        ([9, 8, 7], [1, -1, -1]),
        ([7, 7, 8, 8], [1, None, 1, None]),
        ([10, 50, 11, 49, 12, 48], [1, 1, 1, -1, 1, -1]),  # two people, who work towards one another
        ([10, 11, 12, 11, 10, 9], [1, 1, 1, -1, -1, -1]),  # back
        ([3, 30, 31], [1, 1, 1]),  # a leap
    ],
)
def test_the_direction_of_work(clicks: list[int], directions: list[int | None]) -> None:
    seen = Directions()
    assert [seen.of(1, task) for task in clicks] == directions


def test_projects_have_directions_of_their_own() -> None:
    seen = Directions()
    assert [seen.of(1, 9), seen.of(2, 3), seen.of(1, 8), seen.of(2, 4)] == [1, 1, -1, 1]


class LabelStudio:
    """The tasks of a project, and what was asked for."""

    lists_tasks = True

    def __init__(self, tasks: range) -> None:
        self.tasks = tasks
        self.read_: list[str] = []
        self.embedded: list[bytes] = []
        self.fails: dict[str, Exception] = {}

    async def next_tasks(self, project: int, task: int, direction: int, count: int) -> list[dict[str, Any]]:
        after = [each for each in self.tasks if (each - task) * direction > 0]
        after.sort(key=lambda each: abs(each - task))
        return [{"id": each, "data": {"picture": f"/{each}.jpg"}} for each in after[:count]]

    async def read(self, reference: str, field: str) -> bytes:
        self.read_.append(reference)
        if reference in self.fails:
            raise self.fails[reference]
        return reference.encode()

    async def embed(self, image: bytes, field: str, bulk: bool) -> None:
        assert bulk
        self.embedded.append(image)


def embedded_after(studio: LabelStudio, count: int, *clicks: int | Callable[[], None]) -> list[str]:
    """The pictures that are embedded after clicks in tasks, each of which waits for what the one before it caused."""

    async def work() -> None:
        anything: Any = studio
        async with Prewarming(anything, anything, count) as prewarming:
            for click in clicks:
                if isinstance(click, int):
                    prewarming.clicked("1.1764000000", click, "picture")
                else:
                    click()
                for _ in range(50):
                    await asyncio.sleep(0)

    asyncio.run(work())
    return [image.decode() for image in studio.embedded]


def test_the_next_tasks_are_embedded_once_and_no_more_than_asked_for() -> None:
    assert embedded_after(LabelStudio(range(1, 10)), 2, 3, 4, 5) == ["/4.jpg", "/5.jpg", "/6.jpg", "/7.jpg"]
    assert embedded_after(LabelStudio(range(1, 10)), 2, 8, 7) == ["/9.jpg", "/6.jpg", "/5.jpg"]
    assert embedded_after(LabelStudio(range(1, 10)), 3, 9, 9) == []


def test_zero_turns_it_off() -> None:
    assert embedded_after(LabelStudio(range(1, 10)), 0, 3) == []
    unknown = LabelStudio(range(1, 10))
    unknown.lists_tasks = False
    assert embedded_after(unknown, 2, 3) == []


def test_an_image_that_fails_costs_only_itself(caplog: pytest.LogCaptureFixture) -> None:
    studio = LabelStudio(range(1, 10))
    studio.fails["/4.jpg"] = Problem(400, "the image is in a cloud storage", "URL_FAILED", "x")
    assert embedded_after(studio, 2, 3) == ["/5.jpg"]
    assert "beside task 3 of project 1" in caplog.text
    assert "cloud storage" in caplog.text


def test_servers_that_are_busy_are_left_alone() -> None:
    studio = LabelStudio(range(1, 10))
    studio.fails["/4.jpg"] = Overloaded("too much waits", "BUSY")
    assert embedded_after(studio, 2, 3) == []
    assert studio.read_ == ["/4.jpg"]
    assert embedded_after(studio, 2, 3, studio.fails.clear, 4) == ["/5.jpg", "/6.jpg"]


@pytest.mark.parametrize(("project", "task"), [("", 3), ("x.1", 3), ("1.1", None), ("1.1", "3")])
def test_requests_without_numbers_are_passed_over(project: str, task: Any) -> None:
    async def work() -> None:
        studio: Any = LabelStudio(range(1, 10))
        async with Prewarming(studio, studio, 2) as prewarming:
            prewarming.clicked(project, task, "picture")
            for _ in range(50):
                await asyncio.sleep(0)
        assert not studio.embedded

    asyncio.run(work())
