"""The examples say what is wrong with their arguments before they start anything."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("demo.py", "nofile.jpg"), "error: no such file: nofile.jpg\n"),
        (("demo.py", "--point", "3"), "error: --point '3' is not X,Y in pixels, such as 500,375\n"),
        (("prelabel_coco.py", "none.json", ".", "out.json"), "error: no such file: none.json\n"),
    ],
)
def test_wrong_arguments_are_said_at_once(command: tuple[str, ...], message: str, tmp_path: Path) -> None:
    script, *arguments = command
    result = subprocess.run(
        [sys.executable, ROOT / "examples" / script, *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert (result.returncode, result.stdout, result.stderr) == (1, "", message)
