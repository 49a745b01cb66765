"""The example for Node gives the mask that the Python client gives."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from testing.paths import ROOT
from testing.servers import Stack

EXAMPLE = ROOT / "clients/node"

pytestmark = pytest.mark.skipif(shutil.which("npm") is None, reason="no Node on this machine")


@pytest.fixture(scope="module", autouse=True)
def packages() -> None:
    if not (EXAMPLE / "node_modules").exists():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=EXAMPLE, check=True)


def click(stack: Stack, image: Path, x: float, y: float) -> subprocess.CompletedProcess[str]:
    command = ["node", "click.mjs", str(image), str(x), str(y)]
    environment = {**os.environ, **stack.environment}
    return subprocess.run(command, cwd=EXAMPLE, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.client("Node, @grpc/grpc-js", "EncodeImage, Segment", package="@grpc/grpc-js")
def test_a_click(stack: Stack, photo: Path) -> None:
    run = click(stack, photo, 300, 200)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    with stack.client() as client:
        expected = client.segment(photo, points=[(300, 200)])
    assert (found["height"], found["width"]) == expected.mask.shape
    assert found["area"] == int(expected.mask.sum())
    assert found["score"] == pytest.approx(expected.score, abs=1e-6)


def test_an_error_is_told(stack: Stack, photo: Path) -> None:
    run = click(stack, photo, 30_000, 200)
    assert run.returncode == 1
    assert "outside of the image, which is 600 px wide" in run.stderr
