"""Names are looked up one by one while few are asked for, and together while many are."""

import asyncio
import threading
from typing import Any

import pytest
from maskwire_core.errors import Unavailable
from maskwire_core.storage.store import Store
from maskwire_decoder.name_lookups import NameLookups


class Shelf(Store):
    """Knows names that begin with k; answers when it is let."""

    def __init__(self) -> None:
        self.let = threading.Semaphore(0)
        self.asked: list[int] = []
        self.fails = False

    def get_alias(self, namespace: str, image_id: str) -> str | None:
        return self._answer([(namespace, image_id)])[0]

    def get_aliases(self, names: Any) -> list[str | None]:
        return self._answer(names)

    def _answer(self, names: Any) -> list[str | None]:
        self.let.acquire()
        self.asked.append(len(names))
        if self.fails:
            raise Unavailable("STORE_UNAVAILABLE", "the store does not answer")
        return [f"{namespace}/{name}" if name.startswith("k") else None for namespace, name in names]


def test_many_names_share_round_trips() -> None:
    async def ask() -> None:
        shelf = Shelf()
        lookups = NameLookups(shelf)
        calls = [asyncio.create_task(lookups.find("a", f"{'kn'[number % 2]}{number}")) for number in range(300)]
        await asyncio.sleep(0)
        calls[-1].cancel()  # who has left is not asked for
        shelf.let.release(20)
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert found[:-1] == [f"a/k{number}" if number % 2 == 0 else None for number in range(299)]
        assert isinstance(found[-1], asyncio.CancelledError)
        assert sorted(shelf.asked)[:4] == [1] * 4
        assert len(shelf.asked) <= 8
        assert sum(shelf.asked) == 299
        assert await lookups.find("b", "k") == "b/k"

    asyncio.run(ask())


def test_all_are_told_that_the_store_is_away() -> None:
    async def ask() -> None:
        shelf = Shelf()
        shelf.fails = True
        lookups = NameLookups(shelf)
        shelf.let.release(20)
        found = await asyncio.gather(*(lookups.find("a", str(n)) for n in range(50)), return_exceptions=True)
        assert {type(error) for error in found} == {Unavailable}
        shelf.fails = False
        assert await lookups.find("a", "k") == "a/k"

    asyncio.run(ask())


@pytest.mark.parametrize("left", [1, 5, 49])
def test_callers_leave_while_the_store_is_asked(left: int) -> None:
    async def ask() -> None:
        shelf = Shelf()
        lookups = NameLookups(shelf)
        calls = [asyncio.create_task(lookups.find("a", f"k{number}")) for number in range(50)]
        await asyncio.sleep(0.01)
        for call in calls[:left]:
            call.cancel()
        shelf.let.release(20)
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert found[left:] == [f"a/k{number}" for number in range(left, 50)]
        assert await lookups.find("a", "k") == "a/k"

    asyncio.run(ask())
