"""Uploads of the same image share one encode and its urgency."""

import asyncio
import hashlib
import threading
import time
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from maskwire_core.config import EncoderSettings
from maskwire_core.scheduling.fair_queue import Requester
from maskwire_core.scheduling.scheduler import Demand
from maskwire_core.storage import keys
from maskwire_core.storage.store import Store
from maskwire_encoder.encode_lease import found_or_leased
from maskwire_encoder.encoder import ImageEncoder
from maskwire_encoder.spool import ImageFile
from maskwire_encoder.upload import Upload

from testing.waiting import until
from testing.wire import picture

DATA = b"an image file"


class _Store:
    """Grants every lease; releasing one takes until `may_release` is set."""

    def __init__(self) -> None:
        self.may_release = threading.Event()

    def take_lease(self, *_: object) -> bool:
        return True

    def renew_lease(self, *_: object) -> bool:
        return True

    def find_embedding(self, *_: object) -> None:
        return None

    def release_lease(self, *_: object) -> None:
        self.may_release.wait(10)


class _NeverDone(ImageEncoder):
    made = 0

    async def _make(self, upload: Upload, file: ImageFile) -> Any:
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
        return Upload(
            "default",
            caller,
            sha256,
            len(DATA),
            model,
            "key",
            "auto",
            False,
            "fp16",
            demand,
            True,
            60,
            None,
            None,
            0,
            0,
        )

    async def scenario() -> None:
        before = asyncio.all_tasks()
        first = asyncio.create_task(encoder.encode(upload("first", True), ImageFile.of(DATA), 0))
        await until(lambda: encoder.made == 1)
        (flight,) = asyncio.all_tasks() - before - {first} - _renewals()
        first.cancel()
        await asyncio.wait({first})
        bulk = upload("second", True)
        second = asyncio.create_task(encoder.encode(bulk, ImageFile.of(DATA), 0))
        await until(lambda: encoder.made == 2)
        store.may_release.set()
        await asyncio.wait({flight})  # it ends only now, long after the second began
        third = asyncio.create_task(encoder.encode(upload("third", False), ImageFile.of(DATA), 0))
        await until(lambda: not bulk.demand.bulk)
        second.cancel()
        third.cancel()
        await asyncio.wait({second, third})

    asyncio.run(scenario())


def _renewals() -> set[asyncio.Task[Any]]:
    return {task for task in asyncio.all_tasks() if "renew" in str(task.get_coro())}


class _SlowModel:
    """Gives an embedding of zeros when `may_end` is set."""

    fingerprint, largest, device = "f" * 64, 1, torch.device("cpu")
    source, decoder = SimpleNamespace(name="m"), SimpleNamespace(digest="0" * 64, packed=b"")

    def __init__(self) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()

    def prepare(self, rgb: Any) -> torch.Tensor:
        return torch.zeros(1)

    def encode(self, images: Any) -> Any:
        self.begun.set()
        assert self.may_end.wait(10)
        return [{"image_embed": np.zeros((4, 2), np.float32)}]

    def to_store(self, tensors: Any, codec: str) -> Any:
        return tensors


def test_an_embedding_is_kept_for_the_longest_time_told_to_anybody(valkey: str) -> None:
    """One upload waits for another's encode, which keeps the embedding for a shorter time."""
    data, model, store = picture(1), _SlowModel(), Store(valkey)
    encoder = ImageEncoder(EncoderSettings(), store, [cast(Any, model)])
    sha256 = hashlib.sha256(data).digest()
    key = hashlib.sha256(b"kept").hexdigest()

    def upload(name: str, ttl_s: int) -> Upload:
        demand = Demand(Requester("default", name))
        return Upload(
            "default",
            name,
            sha256,
            len(data),
            cast(Any, model),
            key,
            "auto",
            False,
            "fp16",
            demand,
            True,
            ttl_s,
            None,
            None,
            0,
            0,
        )

    async def scenario() -> list[Any]:
        first = asyncio.create_task(encoder.encode(upload("short", 60), ImageFile.of(data), 0))
        assert await asyncio.to_thread(model.begun.wait, 10)
        others = [asyncio.create_task(encoder.encode(upload("long", 600), ImageFile.of(data), 0))]
        others.append(asyncio.create_task(cast(Any, encoder.find(upload("longer", 900)))))
        await until(lambda: list(encoder._flights._waiters.values()) == [3])
        model.may_end.set()
        return [await first, *[await other for other in others]]

    first, *others = asyncio.run(scenario())
    assert [first.cached, *(other.cached for other in others)] == [False, True, True]
    told = [response.image.expires_at.ToMilliseconds() / 1e3 - time.time() for response in (first, *others)]
    np.testing.assert_allclose(told, [60, 600, 900], atol=20)
    found = store.find_embedding("default", key)
    assert found is not None
    assert found.ttl_ms / 1e3 > 900 - 20
    store.close()


class _AnswersLate(Store):
    """Grants a lease at once, and says so when `may_answer` is set."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.granted, self.may_answer = threading.Event(), threading.Event()

    def take_lease(self, lease: str, token: str, ttl_ms: int) -> bool:
        leased = super().take_lease(lease, token, ttl_ms)
        self.granted.set()
        assert self.may_answer.wait(10)
        return leased


def test_a_lease_is_released_if_its_caller_leaves_while_it_is_granted(valkey: str) -> None:
    store, key = _AnswersLate(valkey), hashlib.sha256(b"lease").hexdigest()

    async def take() -> None:
        async with found_or_leased(store, "default", key):
            raise AssertionError

    async def scenario() -> None:
        taking = asyncio.create_task(take())
        assert await asyncio.to_thread(store.granted.wait, 10)
        taking.cancel()
        await asyncio.sleep(0)
        store.may_answer.set()
        await asyncio.wait({taking})

    asyncio.run(scenario())
    assert Store.take_lease(store, keys.lease("default", key), "another", 1)
    store.close()
