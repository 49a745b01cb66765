"""The SAM 2 tests that Roboflow publishes with its server, against the gateway."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from testing.servers import Stack, running_gateway
from testing.web_server import Web

pytestmark = [pytest.mark.compatibility, pytest.mark.timeout(300)]

PUBLISHED = Path(__file__).with_name("roboflow")


@pytest.mark.client("Roboflow's tests of its server", "`test_sam2.py`, with another picture's URL", version="1.5.0")
def test_the_published_tests_pass(stack: Stack, web: Web, photo: Path, tmp_path: Path) -> None:
    web.files["/original.jpg"] = photo.read_bytes()
    folder = tmp_path / "tests/inference/integration_tests"
    folder.mkdir(parents=True)
    (folder / "conftest.py").write_text((PUBLISHED / "conftest.py.txt").read_text())
    # All that the file takes from this module, which else tests other models.
    (folder / "regression_test.py").write_text("def bool_env(val):\n    return str(val).lower() == 'true'\n")
    theirs = (PUBLISHED / "test_sam2.py.txt").read_text()
    url = f"http://localhost:{web.port}/original.jpg"
    ours, replaced = re.subn(r"https://source\.roboflow\.com/[\w/.]+", url, theirs)
    assert replaced == 1
    (folder / "test_sam2.py").write_text(ours)
    with running_gateway(stack, "--urls", "true", "--url-hosts", f"localhost:{web.port}") as (address, _):
        base, port = address.rsplit(":", 1)
        environment = {"API_KEY": "any", "PORT": port, "BASE_URL": base, "SKIP_SAM2_TESTS": "False"}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/inference/integration_tests"],
            cwd=tmp_path,
            env={**os.environ, **environment, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=200,
        )
    assert done.returncode == 0, done.stdout
    assert re.search(r"\b16 passed", done.stdout), done.stdout  # four versions, two routes, the key in two places
