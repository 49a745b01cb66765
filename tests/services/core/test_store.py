"""The store when it fails: refusals, silence, broken connections."""

import asyncio
import contextlib
import dataclasses
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import redis
from maskwire.cli.free_ports import free_port
from maskwire.cli.local_store import store_program
from maskwire_core.errors import ResourceExhausted, Unavailable
from maskwire_core.storage import large_get
from maskwire_core.storage.embedding import pack
from maskwire_core.storage.store import Store

from testing.processes import wait_until
from testing.servers import store_server
from testing.time_bounds import assert_within
from tests.unit.storage.test_records import HEADER, KEY, TENSORS


@pytest.mark.time_bound
def test_a_refused_connection_is_unavailable_soon() -> None:
    store = Store(f"redis://user:secret@127.0.0.1:{free_port()}/0")
    started = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        store.ping()
    took_s = time.monotonic() - started
    assert caught.value.reason == "STORE_UNAVAILABLE"
    assert "secret" not in store.address
    assert_within(took_s, 5)


def test_a_store_that_is_silent_for_a_while_is_asked_again() -> None:
    processes: list[subprocess.Popen[bytes]] = []
    with store_server(store_program(), started=processes) as url:
        store = Store(url, timeout_s=0.1)
        processes[0].send_signal(signal.SIGSTOP)
        with pytest.raises(Unavailable):
            store.ping()
        threading.Timer(1, processes[0].send_signal, [signal.SIGCONT]).start()
        asyncio.run(store.ping_patiently(60))
        store.close()


def test_who_waits_for_a_silent_store_may_give_up() -> None:
    """An encoder that starts ends at the first Ctrl-C, however long it would have gone on asking."""
    processes: list[subprocess.Popen[bytes]] = []
    with store_server(store_program(), started=processes) as url:
        store = Store(url, timeout_s=0.1)
        processes[0].send_signal(signal.SIGSTOP)

        async def give_up() -> None:
            asking = asyncio.create_task(store.ping_patiently(3600))
            await asyncio.sleep(0.5)
            assert not asking.done()
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking

        asyncio.run(give_up())
        processes[0].send_signal(signal.SIGCONT)
        store.close()


def test_what_the_store_refuses_is_unavailable(store_url: str, raw: redis.Redis) -> None:
    raw.acl_setuser("reader", enabled=True, passwords=["+secret"], keys=["*"], commands=["+get", "+ping"])
    store = Store(store_url.replace("redis://", "redis://reader:secret@"))
    assert store.get_alias("default", "photo") is None
    with pytest.raises(Unavailable) as caught:
        store.set_alias("default", "photo", KEY, 100)
    assert caught.value.reason == "STORE_REFUSES"
    # A reader cannot delete what is damaged, and still does not serve it.
    raw.set(f"maskwire:embedding:{{default/{KEY}}}", b"damaged")
    assert store.get_embedding("default", KEY) is None
    store.close()


def test_a_full_store_is_told_and_still_reads() -> None:
    with store_server(store_program(), "--maxmemory", "5mb", "--maxmemory-policy", "noeviction") as url:
        store = Store(url)
        store.put_embedding("default", KEY, pack(HEADER, TENSORS), 100)
        big = pack(dataclasses.replace(HEADER, content_key="b" * 64), {"image_embed": np.zeros(1_000_000, np.float32)})
        store.put_embedding("default", "b" * 64, big, 100)
        with pytest.raises(ResourceExhausted) as caught:
            store.put_embedding("default", "c" * 64, big, 100)
        assert caught.value.reason == "STORE_FULL"
        assert caught.value.retry_after_s
        assert store.get_embedding("default", KEY) is not None
        store.close()


@pytest.mark.time_bound
def test_a_stopped_store_is_given_up_and_found_again() -> None:
    port = free_port()
    started_processes: list[subprocess.Popen[bytes]] = []
    with store_server(store_program(), port=port, started=started_processes) as url:
        (process,) = started_processes
        store = Store(url, timeout_s=0.2)
        store.ping()
        process.send_signal(signal.SIGSTOP)
        try:
            started = time.monotonic()
            with pytest.raises(Unavailable):
                store.get_alias("default", "photo")
            assert_within(time.monotonic() - started, 5)
            started = time.monotonic()
            for _ in range(100):  # others do not wait as long, one by one
                with pytest.raises(Unavailable):
                    store.get_alias("default", "photo")
            assert_within(time.monotonic() - started, 2)
        finally:
            process.send_signal(signal.SIGCONT)

        def found() -> bool:
            with contextlib.suppress(Unavailable):
                return store.get_alias("default", "photo") is None
            return False

        wait_until(found, 1)
        store.close()
    with contextlib.closing(Store(url)) as gone, pytest.raises(Unavailable):
        gone.ping()


def test_large_values_are_read_whole_and_what_is_none_is_as_redis_says(raw: redis.Redis) -> None:
    for size in (0, 1, 100, 65_536, 9_000_000):
        value = np.random.default_rng(size).bytes(size)
        raw.set("value", value)
        read = large_get.get(raw, "value")
        assert read is not None
        assert read.tobytes() == value
    assert large_get.get(raw, "nothing") is None
    raw.lpush("list", 1)
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        large_get.get(raw, "list")
    assert raw.get("value") == value


class _Unparsed(redis.Connection):
    """Fails if redis-py parses the reply to GET."""

    got = False

    def send_command(self, *words: object, **options: object) -> None:
        self.got = words[0] == "GET"
        super().send_command(*words, **options)

    def read_response(self, *arguments: Any, **options: Any) -> Any:
        assert not self.got
        return super().read_response(*arguments, **options)


def test_large_values_are_read_from_the_socket(raw: redis.Redis, store_url: str) -> None:
    """If this fails with a new version of redis-py, `large_get` does not fit it any more: see pyproject.toml."""
    raw.set("value", b"x" * 100_000)
    with redis.Redis(connection_pool=redis.ConnectionPool.from_url(store_url, connection_class=_Unparsed)) as client:
        read = large_get.get(client, "value")
        assert read is not None
        assert read.tobytes() == b"x" * 100_000
        assert client.ping()
    with contextlib.closing(Store(store_url)) as store:
        assert store.connections.get("value") is not None


@contextlib.contextmanager
def cutting(url: str, after_bytes: int) -> Iterator[tuple[str, list[int]]]:
    """A way to a store whose first connections end after some bytes of replies. Yields its URL and how many are to."""
    port, cuts, stopped = int(url.rsplit(":", 1)[1].split("/")[0]), [0], threading.Event()

    def carry(source: socket.socket, target: socket.socket, most: int) -> None:
        with contextlib.suppress(OSError):
            while most > 0 and (data := source.recv(min(most, 65_536))):
                target.sendall(data)
                most -= len(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        while not stopped.is_set():
            with contextlib.suppress(OSError):
                caller, _ = listener.accept()
                store = socket.create_connection(("127.0.0.1", port))
                most = after_bytes if cuts[0] > 0 else 1 << 60
                cuts[0] -= 1
                for arguments in ((caller, store, 1 << 60), (store, caller, most)):
                    threading.Thread(target=carry, args=arguments, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0", cuts
        stopped.set()


@pytest.mark.parametrize("after_bytes", [2_000, 500_000])
def test_a_connection_that_breaks_within_a_value_is_tried_again(valkey: str, after_bytes: int) -> None:
    value = pack(HEADER, {"image_embed": np.ones(1_000_000, np.float32)})
    with contextlib.closing(Store(valkey)) as direct, cutting(valkey, after_bytes) as (url, cuts):
        direct.put_embedding("default", KEY, value, 100)
        with contextlib.closing(Store(url)) as store:
            cuts[0] = 2
            assert store.get_embedding("default", KEY) is not None
            assert cuts[0] == -1
        with contextlib.closing(Store(url)) as store:
            cuts[0] = 9
            with pytest.raises(Unavailable):
                store.get_embedding("default", KEY)
            cuts[0] = 0
            assert store.get_embedding("default", KEY) is not None
            assert store.corrupt_values == 0
        direct.delete_embedding("default", KEY)
