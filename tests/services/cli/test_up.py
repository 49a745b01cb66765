"""`maskwire up`: starts, restarts, drains."""

import json
import os
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from maskwire.cli import local_servers
from maskwire.cli.free_ports import free_port
from maskwire.v1 import tracker_pb2 as pb
from PIL import Image

from testing.processes import children, wait_until
from testing.servers import Up, ready, up
from testing.tracking import conversation
from testing.warm import run_module


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # before it was opened, before it was read
        return False


def test_killed_servers_are_restarted_and_calls_succeed(photo: Path) -> None:
    """Over IPv6, where this machine has it; all other tests use IPv4."""
    host = "::1" if Path("/proc/net/if_inet6").exists() else "127.0.0.1"
    with up("--host", host, "--decoders", "2", gateway=True) as stack:
        assert len(stack.pids) == 5
        shown = f"[{host}]" if ":" in host else host
        assert [address.rpartition(":")[0] for address in (stack.encoder, *stack.decoder.split(","))] == [shown] * 3
        assert stack.gateway is not None
        assert httpx.get(f"{stack.gateway}readyz").status_code == 200
        os.kill(stack.pids["gateway"], signal.SIGKILL)
        with stack.client(retry_s=60) as client:
            before = client.segment(photo, image_id="photo", points=[(300, 200)])
            for name in [name for name in stack.pids if name.startswith("decoder")]:
                os.kill(stack.pids[name], signal.SIGKILL)
            after = client.segment("photo", points=[(300, 200)])
            np.testing.assert_array_equal(before.mask, after.mask)

            os.kill(stack.pids["encoder"], signal.SIGKILL)
            assert client.embed(np.zeros((20, 20, 3), np.uint8)).width == 20

            os.kill(stack.pids["store"], signal.SIGKILL)  # everything stored is lost
            wait_until(lambda: not alive(stack.pids["store"]))
            again = client.segment("photo", points=[(300, 200)])  # from a decoder's memory, or embedded anew
            np.testing.assert_array_equal(before.mask, again.mask)
            client.embed(photo, image_id="photo")  # for others, who could not embed it
            wait_until(lambda: ready(f"{stack.gateway}"))
            cup = {"image_id": "photo", "point_coords": [[300, 200]], "format": "rle"}
            response = httpx.post(f"{stack.gateway}sam2/segment_image", json=cup)
            assert response.status_code == 200, response.text
            (found,) = response.json()["predictions"]
            assert found["masks"] == after.rle
    wait_until(lambda: not any(alive(pid) for pid in stack.pids.values()), seconds=10)


@pytest.fixture(scope="module")
def used() -> Iterator[Up]:
    """What the first of two tests uses and the second one ends."""
    with up("--trackers", "1") as stack:
        yield stack


def test_a_tracker_is_started_that_asks_the_encoder(used: Up, photo: Path) -> None:
    with Image.open(photo) as image:
        width, height = image.size
    with conversation(used.tracker, width_px=width, height_px=height, hand_over=True) as (talk, opened):
        assert (opened.model, opened.hand_over) == ("demo", True)
        talk.send(frame=pb.TrackFrame(part=pb.FramePart(chunk=photo.read_bytes(), last=True)))
        (found,) = talk.click("cup", 0, 300, 200).objects
        assert found.mask.rle.size == [height, width]
    assert local_servers.find_running()[0].environment["MASKWIRE_TRACKER"] == used.tracker


def test_killing_a_decoder_during_use_loses_no_answer(used: Up, photo: Path) -> None:
    with used.client(retry_s=60) as client:
        expected = client.segment(photo, image_id="photo", points=[(300, 200)]).mask
        masks, errors = [], []

        def use() -> None:
            try:
                for _ in range(40):
                    masks.append(client.segment("photo", points=[(300, 200)]).mask)  # noqa: PERF401 - seen as it grows
            except Exception as error:  # reported below, from the main thread
                errors.append(error)

        users = [threading.Thread(target=use) for _ in range(3)]
        for user in users:
            user.start()
        wait_until(lambda: len(masks) >= 10)
        assert all(user.is_alive() for user in users)
        (pid,) = (pid for name, pid in used.pids.items() if name.startswith("decoder"))
        os.kill(pid, signal.SIGKILL)
        for user in users:
            user.join()
        assert errors == []
        assert len(masks) == 120
        assert all((mask == expected).all() for mask in masks)


def test_ctrl_c_drains(used: Up) -> None:
    servers = children(used.process.pid)
    assert len(servers) == 4
    with used.client() as client:
        random = np.random.default_rng(1)
        images = [random.integers(0, 256, (900, 900 + index, 3), np.uint8) for index in range(4)]
        answers: list[int] = []
        callers = [
            threading.Thread(target=lambda image=image: answers.append(client.embed(image).width)) for image in images
        ]
        for caller in callers:
            caller.start()
        wait_until(lambda: len(answers) >= 1)  # one is done, the others have been accepted and wait for the model
        used.process.send_signal(signal.SIGINT)
        for caller in callers:
            caller.join()
        assert sorted(answers) == [900, 901, 902, 903]
        assert used.process.wait(60) == 0
    assert not any(alive(pid) for pid in servers)


def run_up(*options: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return run_module("maskwire.cli", "up", *options, environment=environment)


def test_what_cannot_start_says_why() -> None:
    ports = ("--encoder-port", "0", "--decoder-port", "0", "--trackers", "0", "--no-gateway")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = run_up("--encoder-port", port)
        assert result.returncode == 1
        assert f"cannot listen on 127.0.0.1:{port}: port {port} is in use" in result.stderr
        assert "choose another port with --encoder-port" in result.stderr
    started = time.monotonic()
    result = run_up(*ports, "--model", "sam2.1_hiera_huge")
    assert result.returncode == 1
    assert "no model 'sam2.1_hiera_huge'; did you mean 'sam2.1_hiera_large'?" in result.stderr
    assert time.monotonic() - started < 4
    result = run_up(*ports, "--redis-url", "localhost:6379")
    assert result.returncode == 1
    assert "not a store's address" in result.stderr
    assert "Traceback" not in result.stderr
    # What a server says of itself, `up` passes on, as above.
    nowhere = f"redis://127.0.0.1:{free_port()}/0"
    result = run_module("maskwire_encoder", "--port", "0", "--redis-url", nowhere)
    assert result.returncode == 1
    assert "the store does not answer" in result.stderr
    result = run_up("--host", "[::1]:50051")
    assert result.returncode == 1
    assert "the port is given by itself" in result.stderr


def test_other_commands_find_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photo: Path) -> None:
    """By word that `up` leaves: the one that was ready last, and none that was killed, whose servers end with it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("MASKWIRE_ENCODER", "MASKWIRE_DECODER", "MASKWIRE_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)

    def maskwire(*arguments: str | Path) -> str:
        run = run_module("maskwire.cli", *map(str, arguments), folder=tmp_path)
        assert run.returncode == 0, run.stderr
        return run.stdout

    def encoder() -> str:
        servers = json.loads(maskwire("status", "encoder", "--json"))["servers"]
        return str(servers[0]["address"])

    with up() as first:
        assert encoder() == first.encoder
        assert json.loads(maskwire("segment", photo, "--json"))["width"] == 600
        # Other users of the machine can neither open the store nor read where it is.
        place = Path(first.redis_url.removeprefix("unix://").partition("?")[0])
        (entry,) = (tmp_path / "cache/maskwire/up").iterdir()
        private = (place.parent, 0o700), (place, 0o600), (place.with_name("store.log"), 0o600), (entry, 0o600)
        assert [stat.S_IMODE(path.stat().st_mode) for path, _ in private] == [mode for _, mode in private]
        stored = json.loads(maskwire("store", "stats", "--json"))["namespaces"]
        assert stored["default"]["images"] == 1
        models = json.loads(maskwire("models", "list", "--json"))["models"]
        assert [model["name"] for model in models if model["served"]] == ["demo"]
        with up() as second:
            assert encoder() == second.encoder
            monkeypatch.setenv("MASKWIRE_ENCODER", first.encoder)  # the environment goes first
            assert encoder() == first.encoder
            monkeypatch.delenv("MASKWIRE_ENCODER")
        assert encoder() == first.encoder
        assert len(list((tmp_path / "cache/maskwire/up").iterdir())) == 1
        first.process.kill()
        first.process.wait()
        wait_until(lambda: not any(alive(pid) for pid in first.pids.values()), seconds=30)
        assert local_servers.find_running() == []
        assert list((tmp_path / "cache/maskwire/up").iterdir()) == []
        first.process.returncode = 0  # killed by this test
