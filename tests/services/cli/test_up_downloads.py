"""`maskwire up` gets weights that are missing before it starts anything."""

import hashlib
import json
import os
import signal
from importlib import resources
from pathlib import Path

import pytest
from maskwire.cli.free_ports import free_port

from testing import download_site, small_model
from testing.processes import stopping, wait_until
from testing.servers import up
from testing.warm import Warm, run_module

WEIGHTS = (resources.files("maskwire_encoder") / "weights" / "demo.safetensors").read_bytes()
PORTS = ("--encoder-port", "0", "--decoder-port", "0", "--no-gateway")


def add(folder: Path, url: str, sha256: str) -> None:
    """Makes a model known whose weights are at an address, as a folder that was copied from elsewhere has it."""
    config = small_model.options(folder)["config"]
    described = {"config": config, "checkpoint": str(folder / "mine.safetensors"), "sha256": sha256}
    (folder / "mine.json").write_text(json.dumps({"name": "mine", "url": url, **described}))


def test_missing_weights_are_downloaded_and_served(
    tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKWIRE_MODELS", str(tmp_path))
    with download_site.serving(WEIGHTS) as site:
        add(tmp_path, f"{site.url}/weights.safetensors", hashlib.sha256(WEIGHTS).hexdigest())
        refused = run_module("maskwire.cli", "up", *PORTS, "--model", "mine", "--offline")
        assert refused.returncode == 1
        assert f"the weights of mine are not at {tmp_path}/mine.safetensors, and --offline" in refused.stderr
        assert site.requests == []

        site.cuts, site.hangs = [1_000_000], True
        told = tmp_path / "told.txt"
        first = Warm("maskwire.cli", ["up", *PORTS, "--model", "mine"], files=(None, None, told))
        with stopping(first):
            arrived = tmp_path / "mine.safetensors.part"
            wait_until(lambda: arrived.exists() and arrived.stat().st_size == 1_000_000)
            os.kill(first.pid, signal.SIGINT)
            assert first.wait(30) == 130
        assert "downloading them from http" in told.read_text()
        assert "Traceback" not in told.read_text()

        with up("--model", "mine") as stack, stack.client() as client:
            assert site.requests == [None, "bytes=1000000-"]
            assert client.segment(photo, points=[(300, 200)]).mask.any()
    with up("--model", "mine", "--offline") as stack, stack.client() as client:  # the site is gone
        assert client.segment(photo, points=[(300, 200)]).mask.any()


def test_what_cannot_be_downloaded_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKWIRE_MODELS", str(tmp_path))
    with download_site.serving(WEIGHTS) as site:
        add(tmp_path, f"{site.url}/weights.safetensors", "0" * 64)
        wrong = run_module("maskwire.cli", "up", *PORTS, "--model", "mine")
        assert wrong.returncode == 1
        assert f"instead of {'0' * 64}" in wrong.stderr
        mirrored = run_module("maskwire.cli", "up", *PORTS, "--model", "hiera_tiny", "--mirror", f"{site.url}/models")
        assert mirrored.returncode == 1
        assert site.paths[-1] == "/models/sam2.1_hiera_tiny.pt"
        assert f"{len(WEIGHTS)} bytes instead of 156008466" in mirrored.stderr
    assert not list(tmp_path.glob("*.part"))
    nobody = f"http://127.0.0.1:{free_port()}"
    alone = run_module(
        "maskwire.cli", "up", *PORTS, "--model", "sam2.1_hiera_tiny", environment={"MASKWIRE_MIRROR": nobody}
    )
    assert alone.returncode == 1
    assert f"cannot get {nobody}/sam2.1_hiera_tiny.pt" in alone.stderr
    assert f"Without a network, put the file at {tmp_path}/sam2.1_hiera_tiny.pt; --mirror URL" in alone.stderr
    assert "Traceback" not in wrong.stderr + mirrored.stderr + alone.stderr
