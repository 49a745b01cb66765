"""The work on a request ends when its caller has left."""

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from maskwire.cli.free_ports import free_port

from testing.processes import wait_until
from testing.servers import Stack, running_gateway, running_server
from testing.wire import picture

WAITS = json.dumps({"wait_ms": 60_000}).encode()


class Metrics:
    """The metrics of a gateway and of the decoder behind it."""

    def __init__(self, gateway: str, decoder: str) -> None:
        self.gateway = gateway
        self._decoder = decoder

    def awaiting_images(self) -> float:
        """Calls of the decoder that wait for an image."""
        return self._sum(self._decoder, "maskwire_calls_awaiting_images ")

    def in_progress(self) -> float:
        return self._sum(self.gateway, "maskwire_gateway_requests_in_progress ")

    def ended(self, status: int) -> float:
        """Requests that ended with a status."""
        return self._sum(self.gateway, "maskwire_gateway_request_seconds_count", f'status="{status}"')

    @staticmethod
    def _sum(address: str, *parts: str) -> float:
        lines = httpx.get(f"{address}/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(parts[0]) and parts[-1] in line)


@pytest.fixture(scope="module")
def metrics(stack: Stack) -> Iterator[Metrics]:
    port = free_port()
    with (
        running_server("maskwire_decoder", stack.redis_url, "--metrics-port", str(port)) as (decoder, _),
        running_gateway(stack, "--max-requests", "6", decoder=decoder) as (address, _),
    ):
        yield Metrics(address, f"http://127.0.0.1:{port}")


def request(line: str, body: bytes = b"", *headers: str) -> bytes:
    head = [line, "Host: localhost", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


@contextlib.contextmanager
def sent(metrics: Metrics, data: bytes) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", httpx.URL(metrics.gateway).port)) as connection:
        connection.sendall(data)
        yield connection


def test_waiting_ends(metrics: Metrics) -> None:
    before = metrics.ended(499)
    for _ in range(3):  # each time the slots are free again
        with contextlib.ExitStack() as connections:
            for _ in range(4):
                connections.enter_context(sent(metrics, request("POST /v1/images/missing/segment HTTP/1.1", WAITS)))
            wait_until(lambda: metrics.awaiting_images() == 4, 20)
        wait_until(lambda: metrics.awaiting_images() == 0, 10)
        wait_until(lambda: metrics.in_progress() == 0, 10)
    assert metrics.ended(499) == before + 12


def test_a_stream_of_masks_ends(metrics: Metrics, stack: Stack) -> None:
    with stack.client() as client:
        image = client.embed(picture(7, 900, 700))
    body = json.dumps({"points_per_side": 64}).encode()
    with sent(metrics, request(f"POST /v1/images/{image.image_id}/masks HTTP/1.1", body)) as connection:
        assert connection.recv(12) == b"HTTP/1.1 200"
        assert metrics.in_progress() == 1
    wait_until(lambda: metrics.in_progress() == 0, 10)


def test_what_was_answered_stays_answered(metrics: Metrics, photo: Path) -> None:
    """Also on a connection that goes on, with requests that have no body, and with ones sent before an answer came."""
    before = metrics.ended(499)
    with httpx.Client(base_url=metrics.gateway) as client:
        for _ in range(20):
            assert client.get("/v1/models").status_code == 200
            name = client.post("/v1/images", content=photo.read_bytes()).json()["image"]["image_id"]
            assert client.post(f"/v1/images/{name}/segment", json={"points": [[30, 20]], "labels": [1]}).is_success
    asked = request("GET /v1/models HTTP/1.1") + request("POST /v1/images/missing/segment HTTP/1.1", b"{}")
    with sent(metrics, asked * 2 + request("GET /v1/models HTTP/1.1", b"", "Connection: close")) as connection:
        answers = connection.makefile("rb").read()
    assert answers.count(b"HTTP/1.1 200") == 3
    assert answers.count(b"HTTP/1.1 404") == 2
    assert metrics.ended(499) == before
