"""Uploads of the same image share one encode and its urgency."""

import asyncio
import hashlib
import threading
from types import SimpleNamespace
from typing import Any, cast

from maskwire_core.config import EncoderSettings
from maskwire_core.scheduling.fair_queue import Requester
from maskwire_core.scheduling.scheduler import Demand
from maskwire_encoder.encoder import ImageEncoder
from maskwire_encoder.upload import Encoded, Upload

DATA = b"an image file"


class _Store:
    """Grants every claim; releasing one takes until `may_release` is set."""

    def __init__(self) -> None:
        self.may_release = threading.Event()

    def claim(self, *_: object) -> bool:
        return True

    def renew_claim(self, *_: object) -> bool:
        return True

    def find_embedding(self, *_: object) -> None:
        return None

    def release_claim(self, *_: object) -> None:
        self.may_release.wait(10)


class _NeverDone(ImageEncoder):
    made = 0

    async def _make(self, upload: Upload, data: bytes) -> Encoded:
        self.made += 1
        await asyncio.Event().wait()
        raise AssertionError


def test_an_encode_that_follows_a_cancelled_one_can_be_hurried() -> None:
    store = _Store()
    model: Any = SimpleNamespace(largest=1, device=SimpleNamespace(type="cpu"), source=SimpleNamespace(name="m"))
    encoder = _NeverDone(EncoderSettings(), cast(Any, store), [model])

    def upload(caller: str, bulk: bool) -> Upload:
        demand = Demand(Requester("default", caller), bulk)
        sha256 = hashlib.sha256(DATA).digest()
        return Upload("default", caller, sha256, len(DATA), model, "key", "auto", demand, 60, 0, 0)

    async def until(condition: Any) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def scenario() -> None:
        before = asyncio.all_tasks()
        first = asyncio.create_task(encoder.encode(upload("first", True), DATA, 0))
        await until(lambda: encoder.made == 1)
        (flight,) = asyncio.all_tasks() - before - {first} - _renewals()
        first.cancel()
        await asyncio.wait({first})
        bulk = upload("second", True)
        second = asyncio.create_task(encoder.encode(bulk, DATA, 0))
        await until(lambda: encoder.made == 2)
        store.may_release.set()
        await asyncio.wait({flight})  # it ends only now, long after the second began
        third = asyncio.create_task(encoder.encode(upload("third", False), DATA, 0))
        await until(lambda: not bulk.demand.bulk)
        second.cancel()
        third.cancel()
        await asyncio.wait({second, third})

    asyncio.run(scenario())


def _renewals() -> set[asyncio.Task[Any]]:
    return {task for task in asyncio.all_tasks() if "renew" in str(task.get_coro())}
