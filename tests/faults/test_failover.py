"""Row 17: another server becomes the primary. Sentinels, a cluster, and a name that moves."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import redis
from maskwire.cli.free_ports import free_port
from maskwire_core.errors import InvalidArgument, Unavailable
from maskwire_core.storage import keys
from maskwire_core.storage.embedding import Header, pack
from maskwire_core.storage.logits import drop_logits, get_logits, save_logits, saved_prompts
from maskwire_core.storage.store import Store
from redis.crc import key_slot

from testing.processes import wait_until
from testing.time_bounds import assert_within

from . import processes
from .processes import Server
from .proxy import Proxy
from .results import Observation

KEYS = [f"{index:064x}" for index in range(30)]
AT_ONCE = ("--repl-diskless-sync-delay", "0")  # by default a primary waits five seconds for more replicas


def value(key: str) -> bytes:
    return pack(
        Header("default", key, "demo", "f", "d", 10, 20, "fp32", 0), {"t": np.full(5000, int(key, 16), np.float32)}
    )


def accepted(sentinel: redis.Redis) -> bool:
    """Whether a sentinel begins a failover: it may not know its replica well enough yet."""
    with contextlib.suppress(redis.ResponseError):
        return bool(sentinel.sentinel_failover("mymaster"))
    return False


def use(store: Store, key: str) -> None:
    """Every kind of command that the store gives."""
    store.put_embedding("default", key, value(key), 100)
    embedding = store.get_embedding("default", key)
    assert embedding is not None
    assert (embedding.tensors["t"] == int(key, 16)).all()
    assert store.find_embedding("default", key) is not None
    store.touch_embedding("default", key, 100)
    assert store.take_lease(keys.lease("default", key), "me", 1000)
    assert not store.take_lease(keys.lease("default", key), "you", 1000)
    assert store.renew_lease(keys.lease("default", key), "me", 1000)
    store.release_lease(keys.lease("default", key), "me")
    store.set_alias("default", "a name {with} braces", key, 100)
    assert store.get_alias("default", "a name {with} braces") == key
    assert store.find_aliases("default", ["a name {with} braces"])["a name {with} braces"].ttl_ms > 0
    assert save_logits(store, "default", key, b"p", b"l", 100) == [b"p"]
    assert get_logits(store, "default", key, b"p") == b"l"
    drop_logits(store, "default", key, [b"p"])
    assert saved_prompts(store, "default", key) == []


def until_it_works(action: Callable[[], object], seconds: float = 20) -> None:
    def works() -> bool:
        try:
            action()
        except Unavailable:
            return False
        return True

    wait_until(works, seconds)


@contextlib.contextmanager
def running(*servers: Server) -> Iterator[None]:
    try:
        for server in servers:
            server.start()
        for server in servers:
            server.wait()
        yield
    finally:
        for server in servers:
            if server.lives:
                server.end()


@contextlib.contextmanager
def sentinels(folder: Path) -> Iterator[tuple[Server, Server, redis.Redis, str]]:
    """A primary, its replica, and a sentinel that watches them."""
    primary = processes.store(folder, *AT_ONCE)
    replica = processes.store(folder, "--replicaof", "127.0.0.1", str(primary.port), *AT_ONCE)
    port, config = free_port(), folder / "sentinel.conf"
    config.write_text(
        f"port {port}\nsentinel monitor mymaster 127.0.0.1 {primary.port} 1\n"
        "sentinel down-after-milliseconds mymaster 1000\nsentinel failover-timeout mymaster 3000\n"
    )
    watcher = processes.store(folder, port=port)
    watcher.command[1:] = [str(config), "--sentinel"]
    with running(primary, replica, watcher):
        told = redis.Redis(port=port)
        follower = redis.Redis(port=replica.port)
        wait_until(lambda: follower.info("replication")["master_link_status"] == "up", 30)
        # It asks the primary every ten seconds, the first time before there was a replica.
        told.execute_command("SENTINEL", "DEBUG", "INFO-PERIOD", "100")
        wait_until(lambda: len(told.sentinel_slaves("mymaster")) == 1, 30)
        wait_until(lambda: told.sentinel_slaves("mymaster")[0]["master-link-status"] == "ok", 30)
        told.execute_command("SENTINEL", "DEBUG", "INFO-PERIOD", "10000")
        yield primary, replica, told, f"redis+sentinel://127.0.0.1:{port}/mymaster/0"


@pytest.mark.fault(17)
@pytest.mark.parametrize("fault", ["killed primary", pytest.param("READONLY", marks=pytest.mark.slow)])
@pytest.mark.time_bound
def test_sentinels_name_another_primary(tmp_path: Path, note: Observation, fault: str) -> None:
    with sentinels(tmp_path) as (primary, replica, told, url), contextlib.closing(Store(url)) as store:
        use(store, KEYS[0])
        assert "mymaster" in store.address
        if fault == "READONLY":
            note.injected = "SENTINEL FAILOVER: the old primary lives on as a replica"
            since = "it had turned read-only"
            wait_until(lambda: accepted(told), 20)
            wait_until(lambda: redis.Redis(port=primary.port).info("replication")["role"] == "slave", 20)
            note.fault()
        else:
            note.injected = "SIGKILL to the primary; the sentinel declares it down after 1 s"
            since = "the kill, the sentinel's own waiting included"
            note.fault()
            primary.kill()
        until_it_works(lambda: use(store, KEYS[1]))
        took_s = note.recovered()
        assert redis.Redis(port=replica.port).exists(f"maskwire:embedding:{{default/{KEYS[1]}}}")
    assert_within(took_s, 5)
    note.observed = f"writes went to the new primary {took_s:.1f} s after {since}"


@pytest.mark.fault(17, variant="moved name")
@pytest.mark.time_bound
def test_a_name_moves_to_another_primary(tmp_path: Path, note: Observation) -> None:
    note.injected = "the primary became a replica while connections to it stayed open; its address leads to the new one"
    old, new = processes.store(tmp_path), processes.store(tmp_path)
    with (
        running(old, new),
        Proxy(old.port).running() as name,
        contextlib.closing(Store(f"redis://{name.address}/0")) as store,
    ):
        use(store, KEYS[0])
        name.target = new.port
        note.fault()
        redis.Redis(port=old.port).execute_command("REPLICAOF", "127.0.0.1", str(new.port))
        until_it_works(lambda: use(store, KEYS[1]))
        took_s = note.recovered()
        assert redis.Redis(port=new.port).exists(f"maskwire:embedding:{{default/{KEYS[1]}}}")
    assert_within(took_s, 5)
    note.observed = f"the connections were given up; writes reached the new primary {took_s:.2f} s later"


@pytest.mark.fault(17, variant="cluster")
def test_a_cluster_moves_keys_and_loses_a_node(tmp_path: Path, note: Observation) -> None:
    note.injected = "slots moved under open connections (ASK, MOVED), then SIGKILL to a node that has a replica"
    options = (
        *("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-replica-validity-factor", "0"),
        *AT_ONCE,
    )
    nodes = []
    for index in range(4):
        port = free_port()
        nodes.append(
            processes.store(
                tmp_path,
                *options,
                "--cluster-config-file",
                f"nodes-{index}.conf",
                "--cluster-port",
                str(free_port()),
                port=port,
            )
        )
    with running(*nodes):
        raw = [redis.Redis(port=node.port) for node in nodes]
        build(raw, nodes)
        with contextlib.closing(Store(f"redis+cluster://127.0.0.1:{nodes[0].port},127.0.0.1:{nodes[1].port}")) as store:
            for key in KEYS:
                use(store, key)
            with pytest.raises(Unavailable, match="store"), store.connections.commands():
                raise redis.ReadOnlyError("READONLY You can't write against a read only replica.")
            move(raw, f"maskwire:embedding:{{default/{KEYS[0]}}}", lambda: read_all(store))
            read_all(store)
            ids = [one.execute_command("CLUSTER", "MYID").decode() for one in raw]
            wait_until(lambda: ids[3] in replicas(raw[0], ids[2]), 20)
            wait_until(lambda: raw[3].info("replication")["master_link_status"] == "up", 20)
            time.sleep(0.3)
            note.fault()
            nodes[2].kill()
            until_it_works(lambda: [use(store, key) for key in KEYS], 40)
            took_s = note.recovered()
            read_all(store)
    note.observed = (
        f"keys were read on their way; every key could be written again {took_s:.1f} s after the kill, the "
        "cluster's own 1 s and its vote included"
    )


def build(raw: list[redis.Redis], nodes: list[Server]) -> None:
    """Three primaries, and a replica of the last."""
    for index, node in enumerate(nodes[1:], 1):
        busport = int(nodes[index].command[nodes[index].command.index("--cluster-port") + 1])
        raw[0].execute_command("CLUSTER", "MEET", "127.0.0.1", str(node.port), str(busport))
    wait_until(lambda: all(one.execute_command("CLUSTER INFO")["cluster_known_nodes"] == "4" for one in raw), 20)
    for index, (first, last) in enumerate(((0, 5460), (5461, 10922), (10923, 16383))):
        raw[index].execute_command("CLUSTER", "ADDSLOTSRANGE", str(first), str(last))
    last_id = raw[2].execute_command("CLUSTER", "MYID").decode()

    def follows() -> bool:
        with contextlib.suppress(redis.ResponseError):  # it has not heard of the node yet
            raw[3].execute_command("CLUSTER", "REPLICATE", last_id)
            return True
        return False

    wait_until(follows, 20)
    wait_until(lambda: all(one.execute_command("CLUSTER INFO")["cluster_state"] == "ok" for one in raw), 30)


def replicas(node: redis.Redis, of: str) -> str:
    return str(node.execute_command("CLUSTER", "REPLICAS", of))


def move(raw: list[redis.Redis], name: str, between: Callable[[], None]) -> None:
    """Moves a key's slot from the node that has it to another primary, asking at every step."""
    slot = raw[0].execute_command("CLUSTER", "KEYSLOT", name)
    source = next(index for index in range(3) if name.encode() in raw[index].keys("*"))
    target = (source + 1) % 3
    ids = [one.execute_command("CLUSTER", "MYID").decode() for one in raw]
    raw[target].execute_command("CLUSTER", "SETSLOT", str(slot), "IMPORTING", ids[source])
    raw[source].execute_command("CLUSTER", "SETSLOT", str(slot), "MIGRATING", ids[target])
    between()
    port = str(raw[target].connection_pool.connection_kwargs["port"])
    for key in raw[source].execute_command("CLUSTER", "GETKEYSINSLOT", str(slot), "100"):
        raw[source].execute_command("MIGRATE", "127.0.0.1", port, key, "0", "5000")
        between()  # the key is asked for where it was, and found by ASK
    for index in (target, source, *({0, 1, 2} - {target, source})):
        raw[index].execute_command("CLUSTER", "SETSLOT", str(slot), "NODE", ids[target])
    between()


def read_all(store: Store) -> None:
    for key in KEYS:
        embedding = store.get_embedding("default", key)
        assert embedding is not None
        assert (embedding.tensors["t"] == int(key, 16)).all()
        assert store.find_embedding("default", key) is not None


def test_keys_of_one_image_share_a_slot() -> None:
    names = [key("default", KEYS[3]) for key in (keys.embedding, keys.lease, keys.prompts, keys.logits)]
    assert len({key_slot(name.encode()) for name in names}) == 1


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://localhost:26379",
        "redis+sentinel://localhost/a/b/c",
        "redis+sentinel://:26379/mymaster",
        "redis+cluster://localhost:port",
        "redis+cluster://localhost:7000/1",
        "redis+magic://localhost",
        "http+cluster://localhost",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgument, match="not a store's address"):
        Store(url)


def test_a_cluster_that_is_away_is_unavailable() -> None:
    with contextlib.closing(Store(f"redis+cluster://user:secret@127.0.0.1:{free_port()}")) as store:
        with pytest.raises(Unavailable):
            store.ping()
        assert "secret" not in store.address
