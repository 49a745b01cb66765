"""The gateway's limits, and what it does under load and at its end."""

import asyncio
import concurrent.futures
import contextlib
import json
import os
import random
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from maskwire.cli.free_ports import free_port
from maskwire_core.http.listening import ListeningLoop
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from testing.guarded import guarded_servers
from testing.processes import resident_bytes, wait_until
from testing.servers import Stack, running_gateway
from testing.wire import as_base64, picture

CLICK = {"points": [{"x_px": 260, "y_px": 130}]}


def test_bodies_have_limits(stack: Stack, photo: Path) -> None:
    options = ("--max-image-bytes", "100000", "--body-memory-bytes", "6000000", "--body-timeout-s", "1")
    with running_gateway(stack, *options) as (address, _):
        answer = httpx.post(f"{address}/v1/images", content=bytes(200_000))
        assert (answer.status_code, answer.json()["reason"]) == (413, "BODY_TOO_LARGE")

        def pieces(count: int) -> Iterator[bytes]:
            for _ in range(count):
                yield bytes(100_000)

        assert httpx.post(f"{address}/v1/images", content=pieces(100)).status_code == 413  # of no declared size
        image = as_base64(bytes(1_000_000))
        answer = httpx.post(f"{address}/sam2/embed_image", json={"image": image})
        assert (answer.status_code, answer.json()["reason"]) == (413, "IMAGE_TOO_LARGE")
        assert httpx.post(f"{address}/sam2/embed_image", content=bytes(9_000_000)).status_code == 413
        # Those who send slowly are sent away; what they had sent is free again.
        slow = [socket.create_connection(("127.0.0.1", httpx.URL(address).port)) for _ in range(2)]
        for one in slow:
            one.sendall(
                b"POST /v1/images/x/segment HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000000\r\n\r\n"
                + bytes(3_900_000)
            )
        said = sorted(one.makefile("rb").readline().split()[1] for one in slow)
        assert said == [b"408", b"429"]  # one was too slow, the other too much beside it
        wait_until(lambda: httpx.post(f"{address}/v1/images", content=photo.read_bytes()).status_code == 200, 5)
        for one in slow:
            one.close()
        # What a request is kept for counts until it is answered.
        body = json.dumps({"wait_ms": 1000, "prompts": [CLICK]}).encode() + b" " * 3_500_000
        with concurrent.futures.ThreadPoolExecutor() as threads:
            answers = list(
                threads.map(lambda _: httpx.post(f"{address}/v1/images/missing/segment", content=body), range(2))
            )
        assert sorted(answer.json()["reason"] for answer in answers) == ["IMAGE_NOT_FOUND", "TOO_MUCH_IN_PROGRESS"]


def test_who_sends_nothing_keeps_nobody_out(stack: Stack) -> None:
    """Half-sent headers, bodies that trickle and endless headers, more than there are places, all from one address."""
    options = ("--max-connections", "30", "--max-requests", "4", "--header-timeout-s", "2", "--body-timeout-s", "2")
    with running_gateway(stack, *options) as (address, pid), contextlib.ExitStack() as opened:

        def begin(data: bytes) -> socket.socket:
            connection = opened.enter_context(socket.create_connection(("127.0.0.1", httpx.URL(address).port)))
            connection.sendall(data)
            connection.settimeout(10)
            return connection

        def status(connection: socket.socket) -> bytes:
            return connection.recv(200).split(b" ")[1]

        def serves() -> bool:
            return httpx.get(f"{address}/v1/models").status_code == 200

        half = [begin(b"GET /v1/models HTTP/1.1\r\nHost: local") for _ in range(60)]
        assert serves()
        assert status(half[-1]) == b"408"
        slow = [begin(b"POST /v1/images HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx") for _ in range(18)]
        assert serves()
        assert status(slow[-1]) == b"408"
        many = begin(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 300 + b"\r\n")
        assert status(many) == b"431"
        before = resident_bytes(pid)
        endless = begin(b"GET / HTTP/1.1\r\nHost: localhost\r\nA: ")
        with contextlib.suppress(OSError):
            for _ in range(1_000):
                endless.sendall(b"a" * 65_536)
        assert resident_bytes(pid) - before < 20e6
        assert serves()


def test_without_a_token_nothing_is_read(tmp_path: Path) -> None:
    """A body stays with its caller, and a WebSocket is not accepted; whoever has a token goes on meanwhile."""
    with guarded_servers(tmp_path) as servers, running_gateway(servers) as (address, _):
        with socket.create_connection(("127.0.0.1", httpx.URL(address).port)) as connection:
            connection.settimeout(10)
            connection.sendall(b"POST /v1/images HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000000\r\n\r\n")
            assert connection.recv(200).split(b" ")[1] == b"401"
        for headers, expected in (({}, 401), ({"Authorization": "Bearer mw_a_b"}, 401)):
            with (
                pytest.raises(InvalidStatus) as caught,
                connect(f"{address.replace('http', 'ws')}/v1/stream", additional_headers=headers),
            ):
                pass
            assert caught.value.response.status_code == expected
        mine = {"Authorization": f"Bearer {servers.token()}"}
        with connect(f"{address.replace('http', 'ws')}/v1/stream", additional_headers=mine):
            assert httpx.get(f"{address}/v1/models", headers=mine).status_code == 200


# Under load, and at the end


def test_fifty_clients_with_mixed_bad_input(stack: Stack, photo: Path) -> None:
    """Right statuses, nothing unexpected, and memory that stays bounded."""
    cup, big = as_base64(photo.read_bytes()), as_base64(bytes(3_000_000))
    point = {"points": [{"x": 260, "y": 130, "positive": True}]}
    kinds: list[tuple[str, dict[str, Any], set[int]]] = [
        ("/sam2/segment_image", {"json": {"image": cup, "prompts": [point], "format": "rle"}}, {200}),
        ("/sam2/segment_image", {"json": {"image": cup, "prompts": [point], "format": "binary"}}, {200}),
        ("/v1/images", {"content": photo.read_bytes()}, {200}),
        ("/v1/images/loaded/segment", {"json": {"prompts": [CLICK]}}, {200}),
        ("/sam2/embed_image", {"json": {"image": big}}, {400}),
        ("/sam2/embed_image", {"json": {"image": as_base64(picture(1, 61, 47)[:900])}}, {400}),
        (
            "/sam2/segment_image",
            {"json": {"image": cup, "prompts": [{"points": [{"x": 1e9, "y": 1, "positive": True}]}]}},
            {400},
        ),
        ("/sam2/segment_image", {"content": b"[" * 200_000}, {422}),
        ("/sam2/segment_image", {"json": {"image": cup, "format": "tiff"}}, {422}),
        ("/sam2/segment_image", {"json": {"image_id": "nobody"}}, {404}),
        ("/v1/images/loaded/segment", {"content": b'{"prompts":' * 10_000}, {400}),
        ("/v1/images/loaded/segment", {"json": {"prompts": [{"points": [{"x_px": 1, "y_px": 1}] * 3000}]}}, {400}),
        ("/v1/images", {"content": bytes(9_000_000)}, {413}),
        ("/v1/images", {"content": b""}, {400}),
        ("/v1/images/" + "x" * 400 + "/segment", {"json": {}}, {400}),
    ]
    for _, arguments, _ in kinds:  # written once, not by each client
        if "json" in arguments:
            arguments["content"] = json.dumps(arguments.pop("json")).encode()
            arguments["headers"] = {"content-type": "application/json"}
    options = ("--max-image-bytes", "8000000", "--body-memory-bytes", str(128 << 20))
    with running_gateway(stack, *options) as (address, pid), httpx.Client(base_url=address, timeout=120) as client:
        begun = resident_bytes(pid)
        client.post("/v1/images", content=photo.read_bytes(), params={"image_id": "loaded"})
        peaks: list[int] = []
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.05):
                peaks.append(resident_bytes(pid))

        def use(seed: int) -> list[str]:
            wrong = []
            order = random.Random(seed).sample(kinds, len(kinds) // 3)
            with httpx.Client(base_url=address, timeout=120, verify=False) as one:  # without reading certificates
                for path, arguments, expected in order:
                    answer = one.post(path, **arguments)
                    if answer.status_code not in expected | {429, 503}:
                        wrong.append(f"{path} {answer.status_code} {answer.text[:200]}")
                    if answer.status_code in (429, 503):
                        assert int(answer.headers["retry-after"]) >= 1
            return wrong

        watcher = threading.Thread(target=watch)
        watcher.start()
        resident, fine = [], 0
        try:
            for sweep in range(2):
                with concurrent.futures.ThreadPoolExecutor(50) as pool:
                    wrong = [
                        problem for found in pool.map(use, range(50 * sweep, 50 * sweep + 50)) for problem in found
                    ]
                assert wrong == []
                resident.append(resident_bytes(pid))
        finally:
            done.set()
            watcher.join()
        assert client.get("/readyz").status_code == 200
        metrics = client.get("/metrics").text
        assert 'status="500"' not in metrics
        fine = sum(
            float(line.rsplit(" ", 1)[1])
            for line in metrics.splitlines()
            if "seconds_count" in line and 'status="200"' in line
        )
        assert fine > 100
        assert max(peaks) - begun < 600e6
        assert resident[1] - resident[0] < 60e6


def test_drain_finishes_what_was_accepted(stack: Stack) -> None:
    with running_gateway(stack) as (address, pid):
        answers: list[int] = []

        def embed(seed: int) -> None:
            data = picture(seed, 900, 700)
            answers.append(httpx.post(f"{address}/v1/images", content=data, timeout=60).status_code)

        seeds = np.random.default_rng().integers(1 << 40, size=4).tolist()
        callers = [threading.Thread(target=embed, args=(seed,)) for seed in seeds]
        for caller in callers:
            caller.start()
        metrics = "maskwire_gateway_requests_in_progress 4.0"
        wait_until(lambda: answers != [] or metrics in httpx.get(f"{address}/metrics").text, 20)
        os.kill(pid, signal.SIGTERM)
        for caller in callers:
            caller.join()
        assert answers == [200] * 4
        wait_until(lambda: not alive(address), 20)


def alive(address: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        httpx.get(f"{address}/healthz", timeout=2)
        return True
    return False


@pytest.mark.parametrize("what", ["segment", "masks"])
def test_what_comes_too_late_is_504(stack: Stack, what: str) -> None:
    with running_gateway(stack, "--timeout-s", "0.5") as (address, _):
        answer = httpx.post(f"{address}/v1/images/awaited/{what}", json={"wait_ms": 5000}, timeout=20)
        assert answer.status_code == 504, answer.text
        told = answer.json()
        assert (told["reason"], told["message"][:15]) == ("DEADLINE_EXCEEDED", "the decoder at "), told


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="this machine has no IPv6")
def test_every_interface_is_that_of_ipv4_too() -> None:
    async def scenario() -> None:
        port = free_port()
        loop = asyncio.get_running_loop()
        async with await loop.create_server(asyncio.Protocol, host="::", port=port):
            for host in ("127.0.0.1", "::1"):
                _, writer = await asyncio.open_connection(host, port)
                writer.close()

    with asyncio.Runner(loop_factory=ListeningLoop) as runner:
        runner.run(scenario())
