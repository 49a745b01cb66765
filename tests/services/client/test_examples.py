"""The examples run as they are, are typed, and say what is wrong with their arguments before they start anything."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from testing.paths import ROOT
from testing.servers import Stack


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("demo.py", "nofile.jpg"), "error: no such file: nofile.jpg\n"),
        (("demo.py", "--point", "3"), "error: --point '3' is not X,Y in pixels, such as 500,375\n"),
        (("demo.py", "--point", "3,4"), "error: --point belongs to a photograph: demo.py photo.jpg --point 3,4\n"),
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


SCRIPTS = ("annotate.py", "notebook.py")


MISUSE = {
    "mw.segment('a.jpg', pionts=[(1, 2)])": "pionts",
    "mw.segment('a.jpg', every=3)": '"every"',
    "mw.embed('a.jpg', channels='brg')": '"channels"',
    "mw.session('a.jpg', multimsk=False)": "multimsk",
    "mw.everything('a.jpg', points_per_sid=4)": "points_per_sid",
    "mw.segment('a.jpg').maks": '"maks"',
    "mw.segment_many([('a.jpg', Prompt())], errors='ignore')": "segment_many",
    "Prompt(points=[(1, 2)], lables=[1])": "lables",
}


MYPY = """[mypy]
strict = true
follow_imports = silent
[mypy-supervision.*]
follow_imports = skip
ignore_missing_imports = true
"""


def test_examples_are_typed_and_misuse_is_an_error_of_types(tmp_path: Path) -> None:
    """As mypy finds it for a user who has none of this repository's settings, and no supervision, which needs torch; in
    one run, since it keeps no cache."""
    misuse, settings = tmp_path / "misuse.py", tmp_path / "mypy.ini"
    misuse.write_text("\n".join(["from maskwire import Client, Prompt", "mw = Client()", *MISUSE]) + "\n")
    settings.write_text(MYPY)
    scripts = [*(ROOT / "examples" / script for script in SCRIPTS), misuse]
    options = ["--config-file", settings, "--cache-dir", os.devnull]
    command = [sys.executable, "-m", "mypy", *options, *scripts]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=tmp_path)
    wrong = [line for line in checked.stdout.splitlines() if ": error: " in line]
    assert [line for line in wrong if not line.startswith("misuse.py:")] == []
    for number, (code, said) in enumerate(MISUSE.items(), 3):
        assert any(line.startswith(f"misuse.py:{number}: ") and said in line for line in wrong), code


def test_the_typed_script_writes_a_data_set(stack: Stack, photo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "cup.jpg").write_bytes(photo.read_bytes())
    (folder / "broken.png").write_bytes(b"no picture")
    ran = run_example("annotate.py", stack, tmp_path, "images", "--box", "75,50,500,380", "-o", "masks.json")
    assert "broken.png: image: the file is text" in ran.stderr
    assert "1 masks: masks.json" in ran.stdout
    (annotation,) = json.loads((tmp_path / "masks.json").read_text())["annotations"]
    with stack.client() as client:
        mask = client.segment(photo, box=(75, 50, 500, 380)).mask
    polygons = coco.merge(coco.frPyObjects(annotation["segmentation"], *mask.shape))
    np.testing.assert_array_equal(coco.decode(polygons).astype(bool), mask)


def test_the_notebook_runs_from_top_to_bottom(stack: Stack, tmp_path: Path) -> None:
    ran = run_example("notebook.py", stack, tmp_path)
    lines = ran.stdout.splitlines()
    assert lines[1] == "True"  # BGR and RGB are the same picture
    assert any(line.startswith("missing.jpg image: no such file") for line in lines)
    assert Image.open(tmp_path / "cup.png").size == Image.open(tmp_path / "cup-overlay.png").size == (600, 400)


def run_example(script: str, stack: Stack, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "examples" / script, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | stack.environment,
        timeout=120,
        check=True,
    )
