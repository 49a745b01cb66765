"""The tiers of tests are what they say: a test in tests/unit cannot reach for a process, a socket or torch."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from testing.paths import ROOT

REACHING = """
import asyncio, socket, subprocess
import grpc

def test_process():
    subprocess.run(["true"])

def test_connection():
    try:
        socket.create_connection(("127.0.0.1", 9))
    except BaseException:
        pass  # as a client may catch it

def test_server():
    socket.socket().bind(("127.0.0.1", 0))

def test_channel():
    grpc.insecure_channel("127.0.0.1:9")

def test_torch():
    import torch

def test_logic():
    asyncio.run(asyncio.sleep(0))
"""


def run(folder: Path, test: str) -> str:
    shutil.copy(ROOT / "tests/unit/conftest.py", folder)
    (folder / "test_it.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-q", "-rf", "-p", "no:cacheprovider", str(folder)]
    # The tier's conftest uses testing/. Of pytest's plugins none is needed, and some take seconds to import.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment).stdout


def test_what_a_unit_test_must_not_do_fails_it_with_a_sentence(tmp_path: Path) -> None:
    said = run(tmp_path, REACHING)
    assert "5 failed, 1 passed" in said
    for sentence in (
        "started a process",
        "opened a connection",
        "bound a socket",
        "called grpc.insecure_channel",
        "imported torch",
    ):
        assert f"A test in tests/unit {sentence}. A test that needs it belongs into tests/services" in said


@pytest.mark.parametrize("statement", ["import torch", "from maskwire_encoder.encoder import ImageEncoder"])
def test_a_file_of_unit_tests_that_imports_torch_is_an_error(tmp_path: Path, statement: str) -> None:
    said = run(tmp_path, f"{statement}\n\ndef test_nothing(): pass\n")
    assert "A test in tests/unit imported torch." in said
    assert "1 error" in said


def test_the_fixtures_of_all_tiers_come_without_torch() -> None:
    code = "import tests.conftest, sys; print(sorted({'torch', 'sam2', 'openvino'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout == "[]\n"
