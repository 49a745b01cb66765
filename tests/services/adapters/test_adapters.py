"""What the adapters for labelling tools share."""

import subprocess
import sys

import numpy as np
import pytest
from maskwire_adapters import brush

from testing.adapters import adapter, unpacked
from testing.processes import free_port
from testing.servers import Stack


@pytest.mark.parametrize("seed", range(8))
def test_brush_run_lengths_come_back(seed: int) -> None:
    random = np.random.default_rng(seed)
    height, width = random.integers(1, 300, 2)
    scale = int(random.integers(1, 60))
    coarse = random.random((height // scale + 1, width // scale + 1)) < random.uniform(0, 1)
    mask = np.kron(coarse, np.ones((scale, scale), bool))[:height, :width]
    rle = brush.encode(mask)
    assert np.array_equal(
        unpacked(rle).reshape(height, width, 4), np.repeat(mask[..., None] * np.uint8(255), 4, axis=2)
    )


def test_long_runs_are_told_in_pieces() -> None:
    for size in (1 << 14, (1 << 14) + 1, 3 << 14):  # four channels: one piece, and more
        assert np.array_equal(unpacked(brush.encode(np.ones((1, size), bool))), np.full(4 * size, 255))


@pytest.mark.parametrize("command", ["label-studio", "cvat", "anylabeling"])
def test_help_teaches(command: str) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "maskwire_adapters", command, "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert "--port" in shown
    assert "MASKWIRE_DECODER" in shown


@pytest.mark.parametrize("command", ["label-studio", "cvat", "anylabeling"])
def test_a_model_that_is_not_served_is_refused_at_the_start(stack: Stack, command: str) -> None:
    arguments = [command, "--port", str(free_port()), "--encoder", stack.encoder, "--decoder", stack.decoder]
    ended = subprocess.run(
        [sys.executable, "-m", "maskwire_adapters", *arguments, "--model", "dmeo"], capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert ended.stderr == (
        "error: no model 'dmeo'; did you mean 'demo'? (the adapter was started with --model dmeo)\n"
    )


def test_an_adapter_may_be_started_before_the_servers(stack: Stack) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    with adapter(stack, "cvat", "--encoder", nobody) as http:
        assert http.get("/api/functions").is_success
