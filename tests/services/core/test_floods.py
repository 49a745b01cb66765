"""Floods of calls that are refused: strangers are disconnected, and refusals of a tenant come later."""

import os
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from maskwire.cli.health import health
from maskwire.v1 import decoder_pb2, decoder_pb2_grpc
from maskwire_core.rpc.disconnecting import disconnect
from maskwire_core.tenancy import tokens

from testing.guarded import bearer
from testing.processes import free_port, wait_until
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


def flood(channel: grpc.Channel, count: int, at_once: int = 50) -> Counter[str]:
    """Makes calls without a token, some at a time. Returns how often they ended in which way."""
    stub, codes = decoder_pb2_grpc.DecoderServiceStub(channel), Counter[str]()
    for _ in range(count // at_once):
        for future in [stub.Segment.future(REQUEST) for _ in range(at_once)]:
            codes[future.code().name] += 1
    return codes


def test_who_floods_without_a_token_is_disconnected(flooded: Flooded) -> None:
    with (
        grpc.insecure_channel(flooded.address, OWN_CONNECTION) as proxy,
        grpc.insecure_channel(flooded.address, OWN_CONNECTION) as friend,
        grpc.insecure_channel(flooded.address, OWN_CONNECTION) as stranger,
    ):
        for channel in (proxy, friend):
            assert call(channel, flooded.token)[0] == ANSWERED
        states = list[grpc.ChannelConnectivity]()
        stranger.subscribe(states.append)
        codes = Counter[str]()
        while grpc.ChannelConnectivity.IDLE not in states[1:] and codes.total() < MOST:
            codes += flood(stranger, 100)
        assert codes["UNAUTHENTICATED"] >= 200
        assert codes.total() < MOST
        # On a connection with calls that have a valid token, all go on.
        unread = list[grpc.ChannelConnectivity]()
        proxy.subscribe(unread.append)
        assert set(flood(proxy, 300)) == {"UNAUTHENTICATED"}
        assert call(proxy, flooded.token)[0] == call(friend, flooded.token)[0] == ANSWERED
        assert set(unread) == {grpc.ChannelConnectivity.READY}


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


def test_connections_are_closed_by_their_other_end() -> None:
    for family, host, form in (
        (socket.AF_INET, "127.0.0.1", "ipv4:127.0.0.1:{}"),
        (socket.AF_INET6, "::1", "ipv6:%5B::1%5D:{}"),
    ):
        with socket.create_server((host, 0), family=family) as listener:
            ends = [socket.create_connection(listener.getsockname()[:2]) for _ in range(2)]
            accepted = [listener.accept()[0] for _ in ends]
            open_files = len(os.listdir("/dev/fd"))
            peers = [form.format(end.getsockname()[1]) for end in ends]
            assert disconnect(peers[:1]) == 1
            assert ends[0].recv(1) == b""
            assert len(os.listdir("/dev/fd")) == open_files
            accepted[1].send(b"x")
            assert ends[1].recv(1) == b"x"
            for each in (*ends, *accepted):
                each.close()
