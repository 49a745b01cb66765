"""What callers and browsers meet: a gateway that dies, tokens that end, addresses that they must not reach."""

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import grpc
import httpx
import numpy as np
import pytest
import redis
from maskwire import Client
from maskwire.cli.free_ports import free_port
from maskwire.cli.local_store import store_program
from maskwire.v1 import decoder_pb2, decoder_pb2_grpc, encoder_pb2, encoder_pb2_grpc, types_pb2
from maskwire_core.http.bodies import Body
from maskwire_core.http.problems import Problem
from maskwire_core.scheduling.shares import Shares
from maskwire_core.tenancy import tokens
from maskwire_gateway.http.fetching import Fetcher
from playwright.sync_api import expect

from testing.chromium import Tab
from testing.guarded import bearer, guarded_servers
from testing.processes import wait_until
from testing.servers import Stack, encoder_and_decoder, running_gateway, server, store_server
from testing.time_bounds import assert_within
from testing.web_server import Web
from testing.wire import details, frames, picture

from .results import Observation

CLICK, OUTSIDE = (260, 130), (300, 330)


@pytest.mark.fault(8)
def test_a_killed_gateway_is_survived(
    open_tab: Callable[..., Tab], photo: Path, tmp_path: Path, note: Observation
) -> None:
    """Nothing is lost: the page goes on with what was clicked before, and with what is clicked meanwhile."""
    note.injected = (
        "SIGKILL to the gateway of a page (Chromium) with a click; three times, once while the store lost everything"
    )
    with store_server(store_program()) as url, encoder_and_decoder(url) as servers:  # a store that may be emptied
        took_s = _gateway_killed(open_tab, servers, photo, tmp_path, note)
    note.observed = (
        f"the click that was made meanwhile was answered {took_s:.1f} s after the gateway was back; masks right"
    )


def _gateway_killed(
    open_tab: Callable[..., Tab], servers: Stack, photo: Path, tmp_path: Path, note: Observation
) -> float:
    """Returns how many seconds the first click after a kill took."""
    port = free_port()
    with running_gateway(servers, port=port) as (address, pid):
        tab = open_tab(url=address)
        tab.open_sample()
        tab.click(*CLICK)
        tab.until("it.mask")
        first = tab.mask
        os.kill(pid, signal.SIGKILL)
        tab.page.wait_for_selector("#connection[data-state=waiting]")
        tab.page.keyboard.down("Shift")
        tab.click(*OUTSIDE)
        tab.page.keyboard.up("Shift")
    with running_gateway(servers, port=port) as (_, pid), Client(servers.encoder, servers.decoder) as client:
        note.fault()  # over: the gateway answers again
        tab.until("it.prompt.points.length === 2")
        took_s = note.recovered()
        with client.session(photo) as session:
            session.click(*CLICK)
            np.testing.assert_array_equal(tab.mask, session.click(*OUTSIDE, positive=False).mask)
        tab.page.keyboard.press("Control+z")
        tab.until("it.prompt.points.length === 1")
        np.testing.assert_array_equal(tab.mask, first)
        os.kill(pid, signal.SIGKILL)

        # Now the store is empty, too: the page stores the image again.
        image_id = tab.page.evaluate("() => app.editor.session.image.image_id")
        with redis.Redis.from_url(servers.redis_url) as store:
            store.flushall()
        with server("maskwire_decoder", servers.redis_url) as empty:
            with running_gateway(servers, decoder=empty, port=port) as (_, pid):
                tab.page.keyboard.press("Control+Shift+z")
                tab.until("it.prompt.points.length === 2")
                assert client.get(image_id).width == 600
                os.kill(pid, signal.SIGKILL)

            # An image that is opened while the server is away waits for it.
            (tmp_path / "another.jpg").write_bytes(photo.read_bytes() + b"another file with the same pixels")
            tab.page.set_input_files("#file", tmp_path / "another.jpg")
            expect(tab.page.locator("#working-text")).to_have_text("Waiting for the server")
            with running_gateway(servers, decoder=empty, port=port):
                tab.until_connected()
                tab.click(*CLICK)
                tab.until("it.mask")
                np.testing.assert_array_equal(tab.mask, first)
    return took_s


@pytest.mark.fault(36)
@pytest.mark.time_bound
def test_tokens_are_missing_wrong_expired_and_revoked(tmp_path: Path, note: Observation) -> None:
    note.injected = "calls without a token, with a wrong one and an expired one; a token revoked under an open stream"
    segment = decoder_pb2.SegmentRequest(
        image_id="five", prompts=[types_pb2.Prompt(points=[types_pb2.Point(x_px=5, y_px=5)])]
    )
    closed = threading.Event()

    def requests() -> Iterator[decoder_pb2.SegmentStreamRequest]:
        yield decoder_pb2.SegmentStreamRequest(request_id="1", set_image=decoder_pb2.SetImage(image_id="five"))
        closed.wait(60)

    with (
        guarded_servers(tmp_path) as guarded,
        grpc.insecure_channel(guarded.encoder) as to_encoder,
        grpc.insecure_channel(guarded.decoder) as to_decoder,
    ):
        encoder = encoder_pb2_grpc.EncoderServiceStub(to_encoder)
        decoder = decoder_pb2_grpc.DecoderServiceStub(to_decoder)
        ends_at = datetime.now(UTC) + timedelta(seconds=3)
        short = guarded.token(expires_at=ends_at)
        text = guarded.token()
        encoder.EncodeImage(frames(picture(5), image_id="five"), metadata=bearer(text))
        decoder.Segment(segment, metadata=bearer(text))
        wrong = bearer(text[:-4] + "0000")
        for metadata in ((), wrong):
            for call in (
                lambda metadata=metadata: decoder.Segment(segment, metadata=metadata),
                lambda metadata=metadata: encoder.GetImage(
                    encoder_pb2.GetImageRequest(image_id="five"), metadata=metadata
                ),
            ):
                _refused(call)
        stream = decoder.SegmentStream(requests(), metadata=bearer(text))
        assert next(stream).WhichOneof("outcome") == "image_ready"
        note.fault()
        tokens.change_tokens(guarded.file, lambda entries: [each for each in entries if each.id != text.split("_")[1]])
        _refused(lambda: next(stream))
        took_s = note.recovered()
        _refused(lambda: decoder.Segment(segment, metadata=bearer(text)))
        closed.set()
        wait_until(lambda: datetime.now(UTC) > ends_at, 10)
        _refused(lambda: decoder.Segment(segment, metadata=bearer(short)))
    assert_within(took_s, 5)
    note.observed = f"UNAUTHENTICATED each time; the open stream ended {took_s:.1f} s after its token did"


def _refused(call: Callable[[], object]) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert details(caught.value) == ("UNAUTHENTICATED", "TOKEN_INVALID", "")


@pytest.mark.fault(37, variant="rebinding")
def test_a_name_is_not_looked_up_again(monkeypatch: pytest.MonkeyPatch, note: Observation) -> None:
    note.injected = "a name that stands for a public address when it is checked, and for a private one afterwards"
    answers = iter(["93.184.216.34"])
    looked_up: list[str] = []
    connected: list[str] = []

    def getaddrinfo(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        looked_up.append(host)
        address = host if host[0].isdigit() else next(answers, "127.0.0.1")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    async def connect_tcp(remote_host: str, remote_port: int, **_: Any) -> Any:
        connected.extend(entry[4][0] for entry in getaddrinfo(remote_host, remote_port))
        raise OSError("not connected: it is a test")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(anyio, "connect_tcp", connect_tcp)  # what httpx connects by
    fetching = Fetcher([], 5).fetch("http://rebinds.example/picture.jpg", 1000, Body(Shares(10_000), "test"))
    with ThreadPoolExecutor(1) as aside:  # a browser that another test opened runs a loop in this thread
        fetched = aside.submit(asyncio.run, fetching)
    with pytest.raises(Problem) as caught:
        fetched.result()
    assert caught.value.reason == "URL_FAILED"
    assert connected == ["93.184.216.34"]
    assert looked_up.count("rebinds.example") == 1
    note.observed = "the connection goes to the address that was checked, and the name is not looked up again"


@pytest.mark.fault(37)
def test_urls(stack: Stack, photo: Path, web: Web, note: Observation) -> None:
    note.injected = "URLs of one allowed host, of private addresses in many spellings, and a redirect to one"
    web.files = {"/picture.jpg": photo.read_bytes(), "/large": bytes(5_000_000), "/text": b"hello", "/empty": b""}
    host = f"localhost:{web.port}"
    options = ("--urls", "true", "--url-hosts", host, "--max-image-bytes", "2000000")
    with running_gateway(stack, *options) as (address, _):

        def embed(url: str) -> tuple[int, str]:
            answer = httpx.post(
                f"{address}/sam2/embed_image", json={"image": {"type": "url", "value": url}}, timeout=30
            )
            return answer.status_code, answer.json().get("reason", "")

        assert embed(f"http://{host}/picture.jpg") == (200, "")
        assert web.asked == [("/picture.jpg", host)]
        assert embed(f"http://{host}/large") == (413, "IMAGE_TOO_LARGE")
        assert embed(f"http://{host}/text")[0] == 400
        assert embed(f"http://{host}/empty") == (400, "EMPTY_IMAGE")
        assert embed(f"http://{host}/nothing") == (400, "URL_FAILED")
        asked = len(web.asked)
        assert embed(f"http://{host}/redirect") == (400, "URL_REDIRECTS")
        assert len(web.asked) == asked + 1
        # Allowed is that host alone: to any other private address no connection is made.
        for url in (
            f"http://127.0.0.1:{web.port}/picture.jpg",
            f"http://[::1]:{web.port}/picture.jpg",
            f"http://[::ffff:127.0.0.1]:{web.port}/picture.jpg",
            f"http://2130706433:{web.port}/picture.jpg",
            f"http://0x7f000001:{web.port}/picture.jpg",
            f"http://0.0.0.0:{web.port}/picture.jpg",
            "http://localhost:1/picture.jpg",
            "http://169.254.169.254/latest/meta-data/",
            "http://10.0.0.1/x",
        ):
            assert embed(url) == (400, "PRIVATE_URL"), url
        assert len(web.asked) == asked + 1
        for url in (
            "file:///etc/passwd",
            "ftp://example.org/x",
            "http://",
            "http://u:p@example.org/",
            "gopher://x",
            "http://exa mple/",
        ):
            assert embed(url)[0] == 400
        assert embed("http://no-such-host.invalid/x") == (400, "URL_FAILED")
    note.observed = "the allowed host was read; all others 400 (PRIVATE_URL, URL_REDIRECTS), no connection made"
