"""Connections beyond their share: those that are waited for give way to those that send a request."""

import asyncio
import resource
from typing import Any

import pytest
from maskwire_core.http.bodies import Bodies
from maskwire_core.http.connections import Connections, Timeouts
from maskwire_core.http.large_json import in_turn
from maskwire_core.http.memory import Held, set_holder
from maskwire_core.http.problems import Problem
from maskwire_core.networks import network_of, network_of_peer
from maskwire_core.runtime.open_files import raise_file_limit
from maskwire_core.scheduling.shares import Shares
from maskwire_gateway.http.probes import Probes
from starlette.requests import Request

from testing import virtual_time


class Peer:
    """A connection, and its transport."""

    def __init__(self, address: str, is_waited_for: bool = True) -> None:
        self.address = address
        self.is_waited_for = is_waited_for
        self.transport: Any = self
        self.is_open = True

    def abort(self) -> None:
        self.is_open = False


def test_the_oldest_that_waits_gives_way_to_a_newcomer_of_the_same_address() -> None:
    connections = Connections(9, Timeouts())
    peers = [Peer("attacker") for _ in range(20)]
    assert all(connections.admit(peer) for peer in peers)
    assert [peer.is_open for peer in peers] == [False] * 14 + [True] * 6  # two thirds
    others = [Peer("other") for _ in range(2)]
    assert all(connections.admit(peer) for peer in others)
    assert all(peer.is_open for peer in others)
    for peer in [*peers, *others]:
        connections.left(peer)
    assert len(connections) == 0


def test_whoever_is_served_stays() -> None:
    connections = Connections(3, Timeouts())
    served = [Peer("one", is_waited_for=False) for _ in range(2)]
    assert all(connections.admit(peer) for peer in served)
    assert not connections.admit(Peer("one"))
    newcomer = Peer("two")
    assert connections.admit(newcomer)
    assert all(peer.is_open for peer in served)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("2a00:1:2:3::9", "2a00:1:2:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_whom_an_address_belongs_to(host: str, expected: str) -> None:
    assert network_of((host, 1)) == expected
    assert network_of(None) == "local"
    written = f"ipv6:%5B{host.replace('%', '%25')}%5D" if ":" in host else f"ipv4:{host}"
    assert network_of_peer(f"{written}:50051") == expected
    assert network_of_peer("unix:") == "local"


def receive(pieces: list[tuple[float, bytes]], memory: Shares, timeout_s: float = 30, max_bytes: int = 1 << 20) -> Any:
    """Receives a body that comes in pieces, each some seconds after the one before."""

    async def scenario() -> bytes:
        coming = iter(pieces)

        async def next_piece() -> Any:
            pause_s, data = next(coming, (1e6, b""))
            await asyncio.sleep(pause_s)
            return {"type": "http.request", "body": data, "more_body": bool(data)}

        scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/", "headers": []}
        set_holder(scope, "caller")
        async with Bodies(memory, timeout_s).receive(Request(scope, next_piece), max_bytes) as body:
            assert memory.of("caller") == len(body.data)
            return body.data

    return virtual_time.run(scenario())


def test_bodies_come_in_time_or_not_at_all() -> None:
    memory = Shares(1 << 20)
    assert receive([(8, b"x" * 20_000), (8, b"y"), (0, b"")], memory) == b"x" * 20_000 + b"y"
    for pieces in ([(3.0, b"x")] * 100, [(0.1, b"x" * 100)] * 400):  # both come; both trickle
        with pytest.raises(Problem) as caught:
            receive(pieces, memory)
        assert caught.value.reason == "BODY_TOO_SLOW"
    assert memory.held == 0
    strangers = Shares(1 << 20, {"caller"})
    with pytest.raises(Problem, match="the token as a header") as caught:
        receive([(8, b"x" * 20_000), (8, b"y"), (0, b"")], strangers)
    assert caught.value.reason == "BODY_TOO_SLOW"


def test_whoever_asks_whether_servers_answer_gets_the_answer_of_a_second() -> None:
    asked = 0

    class Servers:
        async def find_unavailable(self) -> list[str]:
            nonlocal asked
            asked += 1
            await asyncio.sleep(0)
            return []

    async def scenario() -> None:
        probes: Any = Probes(Servers(), None, False)  # type: ignore[arg-type]
        await asyncio.gather(*(probes.readyz(None) for _ in range(100)))
        await probes.readyz(None)

    asyncio.run(scenario())
    assert asked == 1


def test_bodies_are_on_their_callers_account() -> None:
    memory = Shares(90_000)
    memory.add("another", 30_000)
    with pytest.raises(Problem) as caught:
        receive([(0, b"x" * 50_000), (0, b"")], memory)  # more than twice of what would be free
    assert caught.value.reason == "TOO_MUCH_IN_PROGRESS"
    assert memory.held == 30_000
    held = Held(memory, "caller")
    held.hold(10_000)
    held.release()
    assert memory.held == 30_000


def test_json_of_too_many_values_is_not_parsed() -> None:
    def parse(data: str | bytes) -> int:
        return len(data)

    assert asyncio.run(in_turn(parse, b"[]," * 300_000)) == 900_000
    for data in (b"[]," * 600_000, "{}," * 600_000):
        with pytest.raises(Problem) as caught:
            asyncio.run(in_turn(parse, data))
        assert (caught.value.status, caught.value.reason) == (413, "TOO_MANY_VALUES")


def test_a_process_may_have_as_many_files_as_it_asks_for() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 100, hard))
        assert raise_file_limit(soft - 50) == soft - 50
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft - 50, hard)
        assert raise_file_limit(soft - 60) == soft - 50  # it has more already
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
