"""Files behind the store: they follow it, and never say what it no longer means."""

import asyncio
import dataclasses
import os
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from maskwire_core.cold_tier import pending
from maskwire_core.cold_tier.files import ColdFiles
from maskwire_core.cold_tier.mover import Mover
from maskwire_core.cold_tier.patience import Patience
from maskwire_core.cold_tier.pending import Kind
from maskwire_core.cold_tier.tier import ColdTier
from maskwire_core.errors import InvalidArgument, Unavailable
from maskwire_core.storage import keys
from maskwire_core.storage.embedding import pack
from maskwire_core.storage.store import Store

from testing.store_twin import twin_store
from tests.unit.storage.test_records import HEADER, KEY, TENSORS

OTHER = "b" * 64
VALUE = pack(HEADER, TENSORS)
T = TypeVar("T")


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "SETTLES_MS", -1)


@pytest.fixture
def tier(store: Store, tmp_path: Path) -> ColdTier:
    return ColdTier(str(tmp_path), store, timeout_s=5)


def moved(tier: ColdTier, store: Store, **options: Any) -> Mover:
    mover = Mover(tier, store, **{"ttl_s": 1000, "most_bytes": 0, **options})
    assert mover._leads()
    mover.move()
    with store.connections.commands() as client:
        client.delete(keys.COLD_MOVER)  # for the next mover
    return mover


def embed(tier: ColdTier, store: Store, image_id: str = "photo", namespace: str = "default") -> None:
    value = pack(dataclasses.replace(HEADER, namespace=namespace), TENSORS)
    store.put_embedding(namespace, KEY, value, 100)
    tier.pending.enter(Kind.EMBEDDING, namespace, KEY)
    tier.pending.enter(Kind.NAME, namespace, image_id)
    store.set_alias(namespace, image_id, KEY, 100)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def wait(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def test_what_left_the_store_is_read_back(tier: ColdTier, store: Store) -> None:
    embed(tier, store)
    moved(tier, store)
    assert tier.pending.count() == 0
    store.delete_embedding("default", KEY)
    store.delete_alias("default", "photo")
    assert wait(tier.content_key("default", "photo")) == KEY
    found = wait(tier.embedding("default", KEY))
    assert found is not None
    embedding, value = found
    assert value == VALUE
    assert embedding.tensors["image_embed"].tolist() == list(range(12))
    for other in ("photos", ""):
        assert wait(tier.content_key("default", other)) is None
    assert wait(tier.content_key("tenant", "photo")) is None
    assert wait(tier.embedding("tenant", KEY)) is None


def test_what_left_the_store_is_described(tier: ColdTier, store: Store, tmp_path: Path) -> None:
    embed(tier, store)
    assert wait(tier.find("default", "photo", 1000)) is None  # pending
    moved(tier, store)
    found = wait(tier.find("default", "photo", 1000))
    assert found is not None
    assert (found.header.content_key, found.nbytes) == (KEY, len(VALUE))
    assert 900_000 < found.ttl_ms <= 1_000_000
    for ttl_s, image_id in ((0, "photo"), (1000, "other")):
        assert wait(tier.find("default", image_id, ttl_s)) is None
    (path,) = tmp_path.glob("embeddings/*/*/*")
    path.write_bytes(VALUE[:-1])
    assert wait(tier.find("default", "photo", 1000)) is None


def test_what_is_pending_is_not_believed(tier: ColdTier, store: Store) -> None:
    embed(tier, store)
    moved(tier, store)
    tier.pending.enter(Kind.NAME, "default", "photo")
    assert wait(tier.content_key("default", "photo")) is None
    tier.pending.enter(Kind.EMBEDDING, "default", KEY)
    assert wait(tier.embedding("default", KEY)) is not None  # it is what it was
    tier.pending.enter(Kind.EMBEDDING, "default", KEY, is_kept=False)
    assert wait(tier.embedding("default", KEY)) is None


def test_what_was_entered_lately_waits(tier: ColdTier, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "SETTLES_MS", 5_000)
    embed(tier, store)
    moved(tier, store)
    assert tier.pending.count() == 2


def test_what_is_deleted_goes(tier: ColdTier, store: Store, tmp_path: Path) -> None:
    embed(tier, store)
    moved(tier, store)
    assert len(files(tmp_path)) == 2
    tier.pending.enter(Kind.EMBEDDING, "default", KEY, is_kept=False)
    tier.pending.enter(Kind.NAME, "default", "photo", is_kept=False)
    moved(tier, store)
    assert files(tmp_path) == []
    assert tier.pending.count() == 0
    embed(tier, store)
    moved(tier, store)
    wait(forget(tier))
    assert files(tmp_path) == []
    wait(forget(tier))  # again


async def forget(tier: ColdTier) -> None:
    async with tier.forgetting("default", "photo", KEY):
        assert await tier.content_key("default", "photo") is None
        assert await tier.embedding("default", KEY) is None


def test_a_name_that_changes_while_it_is_written(tier: ColdTier, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    embed(tier, store)
    write = tier.files.write_name

    def overtaken(namespace: str, image_id: str, key: str) -> None:
        if key == KEY:  # the store changes, and another mover writes that first
            store.set_alias(namespace, image_id, OTHER, 100)
            write(namespace, image_id, OTHER)
        write(namespace, image_id, key)

    monkeypatch.setattr(tier.files, "write_name", overtaken)
    moved(tier, store)
    store.delete_alias("default", "photo")
    assert wait(tier.content_key("default", "photo")) == OTHER


def test_an_embedding_that_is_deleted_while_it_is_written(
    tier: ColdTier, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed(tier, store)
    write = tier.files.write_embedding

    def overtaken(namespace: str, key: str, value: bytes) -> None:
        store.delete_embedding(namespace, key)
        write(namespace, key, value)

    monkeypatch.setattr(tier.files, "write_embedding", overtaken)
    moved(tier, store)
    assert not [path for path in files(tmp_path) if path.startswith("embeddings")]


def test_a_mover_without_the_lease_moves_nothing(tier: ColdTier, store: Store, tmp_path: Path) -> None:
    embed(tier, store)
    assert Mover(tier, store, 1000, 0)._leads()
    Mover(tier, store, 1000, 0).move()
    assert files(tmp_path) == []


@pytest.mark.parametrize("wrong", [b"", VALUE[:-1], VALUE[:200] + b"x" + VALUE[201:], b"\0" * 10_000])
def test_damaged_embeddings_are_deleted(tier: ColdTier, store: Store, tmp_path: Path, wrong: bytes) -> None:
    embed(tier, store)
    moved(tier, store)
    (path,) = tmp_path.glob("embeddings/*/*/*")
    path.write_bytes(wrong)
    assert wait(tier.embedding("default", KEY)) is None
    assert not path.exists()


def test_files_of_others_are_refused(tier: ColdTier, store: Store, tmp_path: Path) -> None:
    embed(tier, store)
    moved(tier, store)
    for kind in ("embeddings", "names"):
        (path,) = tmp_path.glob(f"{kind}/=default/*/*")
        stolen = Path(str(path).replace("=default", "=thief"))
        stolen.parent.mkdir(parents=True)
        stolen.write_bytes(path.read_bytes())
    assert wait(tier.embedding("thief", KEY)) is None
    assert wait(tier.content_key("thief", "photo")) is None


@pytest.mark.parametrize("wrong", [b"{", b"[]", b"{}", b"null", b"[" * 9000, b'{"namespace": "default"}'])
def test_damaged_names_are_unknown(tier: ColdTier, store: Store, tmp_path: Path, wrong: bytes) -> None:
    embed(tier, store)
    moved(tier, store)
    (path,) = tmp_path.glob("names/*/*/*")
    path.write_bytes(wrong)
    assert wait(tier.content_key("default", "photo")) is None


@pytest.mark.parametrize("namespace", ["..", ".", "a.b-c_d"])
def test_names_stay_below_the_folder(store: Store, tmp_path: Path, namespace: str) -> None:
    tier = ColdTier(str(tmp_path / "tier"), store, timeout_s=5)
    embed(tier, store, "../../é/\0"[:8], namespace)
    moved(tier, store)
    assert {path.name for path in tmp_path.iterdir()} == {"tier"}
    assert len(files(tmp_path)) == 2
    assert wait(tier.embedding(namespace, KEY)) is not None


def test_old_files_and_surplus_bytes_go(tier: ColdTier, store: Store, tmp_path: Path) -> None:
    for number, age in enumerate((5000, 300, 200, 100)):
        embed(tier, store, namespace=f"n{number}")
        moved(tier, store)
        for path in tmp_path.glob(f"*/=n{number}/*/*"):
            os.utime(path, (path.stat().st_mtime - age,) * 2)
    mover = moved(tier, store)
    mover.sweep()
    assert not list(tmp_path.glob("*/=n0/*/*"))
    assert len(files(tmp_path)) == 6
    each = sum(path.stat().st_size for path in tmp_path.glob("*/=n1/*/*"))
    moved(tier, store, most_bytes=2 * each).sweep()
    assert {path.split("/")[1] for path in files(tmp_path)} == {"=n2", "=n3"}


def test_an_embedding_that_is_used_again_stays(tier: ColdTier, store: Store, tmp_path: Path) -> None:
    embed(tier, store)
    moved(tier, store)
    (path,) = tmp_path.glob("embeddings/*/*/*")
    for age, is_renewed in ((400, False), (600, True)):
        before = path.stat().st_mtime - age
        os.utime(path, (before, before))
        tier.pending.enter(Kind.EMBEDDING, "default", KEY)
        moved(tier, store)
        assert (path.stat().st_mtime != before) == is_renewed


def test_files_that_hang_are_given_up(tier: ColdTier, store: Store, tmp_path: Path) -> None:
    embed(tier, store)
    moved(tier, store)
    (path,) = tmp_path.glob("embeddings/*/*/*")
    path.unlink()
    os.mkfifo(path)  # opening it waits for a writer
    now = [0.0]
    tier._patience = Patience(0.05, clock=lambda: now[0])

    async def outcomes() -> None:
        for _ in range(3):
            with pytest.raises(Unavailable, match=r"no answer in 0\.05 s"):
                await tier.embedding("default", KEY)
        threads = threading.active_count()
        with pytest.raises(Unavailable, match="failed lately") as refused:
            await tier.content_key("default", "photo")
        assert refused.value.reason == "COLD_TIER_UNAVAILABLE"
        assert refused.value.retry_after_s == 5
        assert threading.active_count() == threads
        now[0] = 6
        assert await tier.content_key("default", "photo") == KEY
        assert await tier.content_key("default", "photo") == KEY  # it works again

    wait(outcomes())
    for _ in range(3):
        with path.open("wb"):
            pass


def test_no_more_threads_hang_than_may(store: Store) -> None:
    patience = Patience(0.01, at_once=2, clock=lambda: 1e9)
    held = threading.Event()

    async def outcomes() -> None:
        for why in ("no answer", "no answer", "too much is asked of it"):
            with pytest.raises(Unavailable, match=why):
                await patience.run("somebody", held.wait)
        held.set()

    wait(outcomes())


def test_tenants_take_turns_at_the_files(store: Store) -> None:
    """Who asks for many is no reason to refuse others."""
    patience = Patience(20, at_once=2)
    order: list[str] = []

    async def outcomes() -> None:
        many = [asyncio.create_task(patience.run("many", order.append, "many")) for _ in range(60)]
        await asyncio.sleep(0)
        await patience.run("few", order.append, "few")
        many[-1].cancel()  # of those who leave nothing stays
        await asyncio.gather(*many, return_exceptions=True)
        assert await asyncio.gather(*(patience.run("many", abs, -1) for _ in range(5))) == [1] * 5

    wait(outcomes())
    assert order.index("few") <= 4
    assert patience._running == 0


@pytest.mark.parametrize("url", ["nonsense://x", "", "relative/folder"])
def test_addresses(url: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        ColdFiles(url)
    assert (error.value.reason, error.value.field) == ("BAD_COLD_TIER", "cold_tier")


STEP = st.sampled_from(["set 1", "set 2", "set shortly", "delete", "expire", "move", "fail"])


@settings(max_examples=40, deadline=None)
@given(st.lists(STEP, max_size=12))
def test_a_name_never_means_an_earlier_image(tmp_path_factory: pytest.TempPathFactory, steps: list[str]) -> None:
    store = twin_store()
    tier = ColdTier(str(tmp_path_factory.mktemp("tier")), store, timeout_s=5)
    mover = Mover(tier, store, 1000, 0)
    assert mover._leads()
    means: str | None = None  # what the name stood for last, and may stand for after the store has lost it

    def change(key: str | None, is_kept: bool, act: Callable[[], object]) -> str | None:
        tier.pending.enter(Kind.NAME, "default", "photo", is_kept=is_kept)
        act()
        return key if is_kept else None

    for step in steps:
        if step.startswith("set"):
            key = {"set 1": KEY, "set 2": OTHER, "set shortly": "c" * 64}[step]
            means = change(
                key,
                step != "set shortly",
                lambda key=key: store.set_alias("default", "photo", key, 100),  # type: ignore[misc]
            )
        elif step == "delete":
            means = change(None, False, lambda: store.delete_alias("default", "photo"))
        elif step == "expire":
            store.delete_alias("default", "photo")
        elif step == "move":
            mover.move()
        else:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(tier.files, "write_name", _broken)
                patch.setattr(tier.files, "delete_name", _broken)
                if tier.pending.count():
                    with pytest.raises(OSError, match="full"):
                        mover.move()
        if store.get_alias("default", "photo") is None:
            assert wait(tier.content_key("default", "photo")) in (None, means)


def _broken(*args: str) -> None:
    raise OSError("full")
