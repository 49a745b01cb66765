"""Quotas of namespaces, and what maskwire store shows and deletes."""

import contextlib
import json
import random
import threading
import time

import pytest
import redis
from click.testing import Result
from maskwire_core.storage import cli
from maskwire_core.storage.clips import ClipStore
from maskwire_core.storage.logits import save_logits, saved_prompts
from maskwire_core.storage.quotas import Quotas
from maskwire_core.storage.store import Store
from maskwire_core.storage.tracks import TrackStore
from typer.testing import CliRunner

from testing.warm import run_module
from tests.unit.storage.test_quotas import SIZE, STORED, key, total_bytes, value


def test_a_quota_holds_while_many_write(store_url: str, raw: redis.Redis) -> None:
    """12 writers of random sizes, some deleting and some looking in again; the store is measured all the while."""
    quota, ends = 12 * SIZE, threading.Event()
    failures: list[BaseException] = []
    seen: list[tuple[int, int]] = []

    def write(seed: int) -> None:
        chance = random.Random(seed)
        with contextlib.closing(Store(store_url)) as own:
            books = Quotas(own)
            try:
                for _ in range(60):
                    number, ttl_s = chance.randrange(60), chance.randrange(50, 200)
                    floats = 200 + 37 * number  # the same for the same key
                    act = chance.random()
                    found = own.find_embedding("acme", key(number))
                    if found is not None and act < 0.2:
                        books.erase_embedding("acme", key(number))
                    elif found is not None:
                        books.touch_embedding("acme", key(number), found[1], ttl_s, quota)
                    else:
                        books.put_embedding("acme", key(number), value(number, floats), ttl_s, quota)
            except BaseException as error:
                failures.append(error)

    def measure() -> None:
        with redis.Redis.from_url(raw_url) as own:
            while not ends.is_set():
                pipeline = own.pipeline()
                pipeline.eval(STORED, 0)
                pipeline.hget("maskwire:sizes:{acme}", "total")
                stored, shown = pipeline.execute()
                seen.append((int(stored), int(shown or 0)))

    raw_url = store_url
    writers = [threading.Thread(target=write, args=(seed,)) for seed in range(12)]
    watcher = threading.Thread(target=measure)
    for thread in (watcher, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    ends.set()
    watcher.join()
    assert not failures
    assert len(seen) > 50
    assert max(stored for stored, _ in seen) > quota / 2
    assert all(stored <= shown <= quota for stored, shown in seen)
    sizes = raw.hgetall("maskwire:sizes:{acme}")
    total = int(sizes.pop(b"total"))
    assert total == sum(map(int, sizes.values()))
    assert set(sizes) == set(raw.zrange("maskwire:usage:{acme}", 0, -1))


def command(*words: str) -> Result:
    return CliRunner().invoke(cli.app, words, env={"COLUMNS": "120"})


def test_stats_and_purge(store: Store, store_url: str, raw: redis.Redis) -> None:
    now, books = time.time(), Quotas(store)
    for number, (namespace, age_s) in enumerate([("acme", 7200), ("acme", 100), ("acme", 5), ("other", 7200)]):
        packed = value(number, 1000, namespace, now - age_s)
        books.put_embedding(namespace, key(number), packed, 500, 100 * SIZE)
    for name, number in (("a", 0), ("b", 0), ("odd}{/name", 2)):
        store.set_alias("acme", name, key(number), 500)
    store.set_alias("other", "a", key(3), 500)
    raw.set(f"maskwire:embedding:{{acme/{key(9)}}}", b"damaged")
    save_logits(store, "acme", key(0), b"prompts", b"logits", 500)
    tracks = TrackStore(store, 1000, 10, 500)
    tracks.open("video", "t", "me")
    assert tracks.write("video", "t", "me", b"meta", {b"record": b"x"}, [], 100)
    ClipStore(store, 1000, 10, 500).upload("video", "c").add(b"frame")

    found = json.loads(command("stats", "--json", "--redis-url", store_url).stdout)["namespaces"]
    assert set(found) == {"acme", "other", "video"}
    assert [found["video"][name] for name in ("tracks", "track_bytes", "clips", "clip_bytes")] == [1, 104, 1, 5]
    assert found["acme"]["tracks"] == found["acme"]["clips"] == 0
    table = command("stats", "--redis-url", store_url).stdout
    assert "1 of 0.0 MiB" in " ".join(table.split())
    assert "…" not in table  # nothing is shortened
    assert "clips" in table
    assert "files" not in table  # what no namespace has gets no column
    assert (found["acme"]["images"], found["acme"]["embeddings"]) == (3, 4)
    assert found["acme"]["nbytes"] == sum(len(value(n, 1000, "acme", now)) for n in range(3)) + 7
    assert found["acme"]["oldest"] == pytest.approx(now - 7200)
    assert found["acme"]["newest"] == pytest.approx(now - 5)

    assert "say what" in command("purge", "--redis-url", store_url).stderr
    assert "not a duration" in command("purge", "--older-than", "soon", "--redis-url", store_url).stderr
    dry = command("purge", "--unreferenced", "--redis-url", store_url)
    assert "nothing was deleted" in dry.stderr
    assert raw.exists(f"maskwire:embedding:{{acme/{key(1)}}}")
    # Key 1 has no name, and neither has what is damaged; key 2 is too young to be judged, and has one.
    done = command("purge", "--unreferenced", "--yes", "--redis-url", store_url)
    assert done.stdout.startswith("2 embeddings"), done
    assert store.get_embedding("acme", key(1)) is None
    done = command("purge", "--namespace", "acme", "--older-than", "1h", "--yes", "--redis-url", store_url)
    assert "1 embeddings of 0.0 MiB deleted, 2 names forgotten" in done.stdout
    assert store.get_alias("acme", "a") is None
    assert store.get_alias("acme", "odd}{/name") == key(2)
    assert saved_prompts(store, "acme", key(0)) == []
    assert store.get_embedding("other", key(3)) is not None
    assert total_bytes(raw, "acme") == len(value(2, 1000, "acme", now - 5))
    raw.delete("maskwire:tracks:{video}", "maskwire:clips:{video}")
    done = command("purge", "--all", "--yes", "--redis-url", store_url)
    assert "2 embeddings" in done.stdout
    assert "names" in done.stdout
    assert json.loads(command("stats", "--json", "--redis-url", store_url).stdout)["namespaces"] == {}
    assert "does not answer" in command("stats", "--redis-url", "redis://127.0.0.1:1/0").stderr


def test_the_command_line_has_it(store: Store, store_url: str) -> None:
    Quotas(store).put_embedding("acme", key(0), value(0, 1000), 100, 0)
    ran = run_module("maskwire.cli", "store", "stats", environment={"MASKWIRE_REDIS_URL": store_url})
    assert ran.returncode == 0, ran.stderr
    assert "acme" in ran.stdout
