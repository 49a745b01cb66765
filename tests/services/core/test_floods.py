"""Floods of calls that are refused or reset: they are held, and so are new connections of who makes them."""

import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from maskwire.cli.free_ports import free_port
from maskwire.cli.health import health
from maskwire.v1 import decoder_pb2, decoder_pb2_grpc
from maskwire_core.rpc.newcomers import Newcomers
from maskwire_core.tenancy import tokens

from testing.guarded import bearer
from testing.processes import wait_until
from testing.warm import running_module
from testing.wire import details

REQUEST = decoder_pb2.SegmentRequest(image_id="x")
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
ANSWERED = "UNAVAILABLE"  # the decoder has no store: that is what whoever has a valid token is told
MOST = 3000


@dataclass
class Flooded:
    """A decoder without a store.

    Attributes:
        address: Its address.
        token: A valid token.
        slow_token: One of another tenant that allows a call an hour.
    """

    address: str
    token: str
    slow_token: str


@pytest.fixture(scope="module")
def flooded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flooded]:
    folder, port = tmp_path_factory.mktemp("flooded"), free_port()
    file = folder / "tokens.json"
    token, entry = tokens.issue(namespaces=["acme"], rights=["segment"])
    slow_token, slow_entry = tokens.issue(namespaces=["slow"], rights=["segment"], requests_per_s=1 / 3600)
    tokens.change_tokens(file, lambda _: [entry, slow_entry])
    words = ["--port", str(port), "--redis-url", f"redis://127.0.0.1:{free_port()}/0", "--tokens", str(file)]
    with running_module("maskwire_decoder", *words, stderr=folder / "log") as process:
        wait_until(lambda: health(f"127.0.0.1:{port}") == "SERVING", process=process)
        yield Flooded(f"127.0.0.1:{port}", token, slow_token)


def call(channel: grpc.Channel, token: str = "") -> tuple[str, str]:
    """Returns status and message of a call that is refused."""
    with pytest.raises(grpc.RpcError) as caught:
        decoder_pb2_grpc.DecoderServiceStub(channel).Segment(REQUEST, metadata=bearer(token) if token else ())
    error: Any = caught.value
    return error.code().name, error.details()


def flood(channel: grpc.Channel, count: int, token: str = "") -> list[grpc.Future]:
    """Makes calls at the same time that the server refuses. Returns them."""
    segment, metadata = decoder_pb2_grpc.DecoderServiceStub(channel).Segment, bearer(token) if token else ()
    return [segment.future(REQUEST, metadata=metadata) for _ in range(count)]


def codes(calls: list[grpc.Future]) -> Counter[str]:
    """Waits for calls. Returns how often they ended in which way."""
    return Counter(each.code().name for each in calls)


def answers_newcomers(address: str) -> bool:
    """Whether a connection can be opened now."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=0.5).close()
    except TimeoutError:
        return False
    return True


def test_strangers_who_flood_wait_and_so_do_their_connections(flooded: Flooded) -> None:
    with (
        grpc.insecure_channel(flooded.address, OWN_CONNECTION) as proxy,
        grpc.insecure_channel(flooded.address, OWN_CONNECTION) as friend,
        grpc.insecure_channel(flooded.address, OWN_CONNECTION) as stranger,
    ):
        for channel in (proxy, friend):
            assert call(channel, flooded.token)[0] == ANSWERED
        calls = flood(stranger, 300)
        wait_until(lambda: not answers_newcomers(flooded.address))
        assert not all(each.done() for each in calls)
        # On a connection with calls that have a valid token, all go on.
        assert codes(flood(proxy, 300)) == {"UNAUTHENTICATED": 300}
        assert call(proxy, flooded.token)[0] == call(friend, flooded.token)[0] == ANSWERED
        assert codes(calls) == {"UNAUTHENTICATED": 300}
    wait_until(lambda: answers_newcomers(flooded.address))


def test_refusals_of_a_tenant_come_later_and_later(flooded: Flooded) -> None:
    with grpc.insecure_channel(flooded.address, OWN_CONNECTION) as channel:
        segment, metadata = decoder_pb2_grpc.DecoderServiceStub(channel).Segment, bearer(flooded.slow_token)
        call(channel, flooded.slow_token)  # the only one that the token allows
        started = time.monotonic()
        assert {details(one)[1] for one in [segment.future(REQUEST, metadata=metadata) for _ in range(300)]} == {
            "RATE_LIMITED"
        }
        assert time.monotonic() - started > 0.9
        # One whose time is short is told in time.
        with pytest.raises(grpc.RpcError) as caught:
            segment(REQUEST, metadata=metadata, timeout=1)
        assert details(caught.value)[1] == "RATE_LIMITED"
        assert call(channel, flooded.token)[0] == ANSWERED


def test_who_resets_calls_in_floods_keeps_their_places(flooded: Flooded) -> None:
    with (
        grpc.insecure_channel(flooded.address, OWN_CONNECTION) as friend,
        grpc.insecure_channel(flooded.address, OWN_CONNECTION) as channel,
    ):
        assert call(friend, flooded.slow_token)[0] in (ANSWERED, "RESOURCE_EXHAUSTED")
        refused = Counter[str]()
        while not refused["UNAVAILABLE"] and refused.total() < MOST:
            for each in flood(channel, 32, flooded.token):
                each.cancel()
            with pytest.raises(grpc.RpcError) as caught:
                decoder_pb2_grpc.DecoderServiceStub(channel).Segment(REQUEST, metadata=bearer(flooded.token))
            error: Any = caught.value
            refused[error.code().name if "stream" in error.details().lower() else "answered"] += 1
        assert refused["UNAVAILABLE"]  # by gRPC itself: all streams are busy
        assert call(friend, flooded.slow_token)[0] == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize(
    ("family", "host", "network"),
    [(socket.AF_INET, "127.0.0.1", "127.0.0.1"), (socket.AF_INET6, "::1", "::/64")],
    ids=("IPv4", "IPv6"),
)
def test_new_connections_of_a_network_wait(family: socket.AddressFamily, host: str, network: str) -> None:
    newcomers = Newcomers()
    with (
        socket.create_server((host, 0), family=family) as listener,
        socket.create_server((host, 0), family=family) as other,
    ):
        address = listener.getsockname()[:2]
        newcomers.find_listeners(address[1])
        with socket.create_connection(address) as old, listener.accept()[0] as accepted:
            try:
                newcomers.keep_waiting("one", ["203.0.113.7", "2001:db8::/64", network, "198.51.100.0"])
                newcomers.keep_waiting("another", [network])
                with pytest.raises(TimeoutError):
                    socket.create_connection(address, timeout=0.3)
                socket.create_connection(other.getsockname()[:2]).close()
                old.send(b"x")
                assert accepted.recv(1) == b"x"
                newcomers.keep_waiting("one", ["203.0.113.7", "2001:db8::/64"])
                with pytest.raises(TimeoutError):
                    socket.create_connection(address, timeout=0.3)
                newcomers.keep_waiting("another", [])
                socket.create_connection(address).close()
            finally:
                newcomers.keep_waiting("one", [])
            socket.create_connection(address).close()
