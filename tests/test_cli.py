"""The command line against running services."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import Stack, free_port
from PIL import Image
from pycocotools import mask as coco


class Terminal:
    """Runs maskwire commands in a folder."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.folder = folder
        self._environment = {**os.environ, **stack.environment}

    def run(self, *arguments: str | Path, code: int = 0, typed: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "maskwire.cli", *map(str, arguments)]
        result = subprocess.run(
            command, capture_output=True, text=True, cwd=self.folder, env=self._environment, timeout=120, input=typed
        )
        assert result.returncode == code, result.stderr + result.stdout
        assert "Traceback" not in result.stderr
        return result


@pytest.fixture
def terminal(stack: Stack, tmp_path: Path) -> Terminal:
    return Terminal(stack, tmp_path)


def test_segment_writes_every_format(terminal: Terminal, stack: Stack, photo: Path) -> None:
    click = ("--point", "300,200", "--negative", "20,380")
    with stack.client() as client:
        expected = client.segment(photo, points=[(300, 200), (20, 380)], labels=[1, 0]).mask
    said = terminal.run("segment", photo, *click, "-o", "mask.png")
    assert "mask.png: score" in said.stdout
    assert "demo model" in said.stderr
    np.testing.assert_array_equal(np.asarray(Image.open(terminal.folder / "mask.png")) == 255, expected)

    terminal.run("segment", photo, *click, "--format", "overlay", "-o", "deep/overlay.png")
    assert Image.open(terminal.folder / "deep/overlay.png").size == (600, 400)
    terminal.run("segment", photo, *click)
    assert (terminal.folder / "coffee.overlay.png").exists()
    terminal.run("segment", photo, *click, "--format", "png")
    assert (terminal.folder / "coffee.mask.png").exists()

    rle = json.loads(terminal.run("segment", photo, *click, "-o", "-").stdout)["masks"][0]["rle"]
    np.testing.assert_array_equal(coco.decode({**rle, "counts": rle["counts"].encode()}), expected)

    terminal.run("segment", photo, *click, "--format", "polygon", "-o", "polygons.json")
    assert json.loads((terminal.folder / "polygons.json").read_text())["masks"][0]["polygons"]

    terminal.run("segment", photo, *click, "--all", "-f", "npz", "-o", "masks")
    arrays = np.load(terminal.folder / "masks")
    assert arrays["masks"].shape == (3, 400, 600)
    assert arrays["low_res_logits"].shape == (3, 128, 128)
    np.testing.assert_array_equal(arrays["masks"][arrays["scores"].argmax()], expected)

    summary = json.loads(terminal.run("segment", photo, *click, "--all", "-o", "m.png", "--json").stdout)
    assert summary["cached"] is True
    assert summary["files"] == ["m-0.png", "m-1.png", "m-2.png"]
    assert summary["timings"]["decode_ms"] > 0


def test_segment_by_box_by_name_and_with_nothing(terminal: Terminal, photo: Path) -> None:
    terminal.run("segment", photo, "--box", "75,50,500,380", "--image-id", "cli-photo", "-o", "box.png")
    terminal.run("segment", "cli-photo", "--point", "300,200", "--single", "-o", "named.png")
    terminal.run("segment", photo, "-o", "nothing.png")
    assert {path.name for path in terminal.folder.iterdir()} == {"box.png", "named.png", "nothing.png"}


def test_errors_are_one_line_with_a_remedy(terminal: Terminal, photo: Path) -> None:
    cases = [
        (
            ("segment", photo, "--point", "900,10"),
            "prompts[0].points[0].x_px: 900 is outside of the image, which is 600 px wide",
        ),
        (("segment", "no-such-image"), "no image named 'no-such-image' is stored"),
        (("segment", photo, "-o", "mask.xyz"), "say --format"),
        (("segment", photo, "-f", "png", "-o", "-"), "is not text"),
        (("segment", photo, "-f", "overlay", "-o", "mask.xyz"), "cannot write mask.xyz"),
        (("segment", photo, "-o", "/proc/mask.png"), "cannot write /proc/mask.png"),
        (("segment", photo, "--decoder", ","), "has no address"),
        (("embed", "missing.jpg"), "cannot read missing.jpg"),
        (("embed", "."), "no images in ."),
    ]
    for arguments, message in cases:
        result = terminal.run(*arguments, code=1)
        said = (result.stderr + result.stdout).strip()
        assert message in said
        machine = terminal.run(*arguments, "--json", code=1)
        assert message.split(": ")[-1] in json.loads(machine.stdout)["error"]["message"]
    assert "X,Y in pixels" in terminal.run("segment", photo, "--point", "3", code=2).stderr


def test_embed_folders_and_skip_what_is_stored(terminal: Terminal, photo: Path) -> None:
    random = np.random.default_rng(8)
    (terminal.folder / "deep").mkdir()
    for name in ("a.png", "deep/b.PNG"):
        Image.fromarray(random.integers(0, 256, (30, 30, 3), np.uint8)).save(terminal.folder / name)
    (terminal.folder / "notes.txt").write_text("no image")
    assert "2 encoded, 0 stored already, 0 failed" in terminal.run("embed", ".").stdout
    (terminal.folder / "bad.jpg").write_bytes(b"no image")
    result = terminal.run("embed", ".", photo, code=1)
    assert "1 failed" in result.stdout
    lines = [json.loads(line) for line in terminal.run("embed", ".", "--json", code=1).stdout.splitlines()]
    assert len(lines) == 3
    assert sum(line.get("cached") is True for line in lines) == 2
    assert terminal.run("embed", photo, "--image-id", "named").stdout.startswith(f"{photo}: named")


def test_status(terminal: Terminal, stack: Stack) -> None:
    assert "SERVING" in terminal.run("status").stdout
    servers = json.loads(terminal.run("status", "--json").stdout)["servers"]
    assert [server["health"] for server in servers] == ["SERVING", "SERVING"]
    assert servers[0]["models"][0]["name"] == "demo"
    (only,) = json.loads(terminal.run("status", "decoder", "--json").stdout)["servers"]
    assert only["kind"] == "decoder"
    down = f"localhost:{free_port()}"
    result = terminal.run("status", "--decoder", f"{stack.decoder},{down}", code=1)
    assert "UNREACHABLE" in result.stdout
    assert "maskwire up" in result.stderr


def test_help_teaches(terminal: Terminal) -> None:
    said = terminal.run("--help").stdout
    for word in ("maskwire up", "segment", "embed", "status", "pixels"):
        assert word in said
    for command in ("segment", "embed", "status", "up"):
        assert "Usage" in terminal.run(command, "--help").stdout


def test_clicking_in_the_terminal(terminal: Terminal, photo: Path) -> None:
    typed = "260,130\n-300,330\nundo\nundo\nredo\nnonsense\n999,1\nbox 135,40,500,345\nsave kept.png\nquit\n"
    output = terminal.run("click", photo, typed=typed).stdout
    assert output.count("object-1: score") == 5
    assert "object-1: no mask" in output
    assert "'nonsense' is no command" in output
    assert "edit.add_point.x_px" in output
    assert Image.open(terminal.folder / "kept.png").size == (600, 400)
    assert Image.open(terminal.folder / "coffee.overlay.png").size == (600, 400)


def test_profile_accounts_for_all_the_time(terminal: Terminal, photo: Path) -> None:
    found = json.loads(terminal.run("profile", photo, "--clicks", "5", "--json").stdout)
    assert found["image"] == {"width": 600, "height": 400, "model": "demo"}
    for part in ("embed", "first_click", "warm_click"):
        hops = found[part]
        assert min(hops.values()) >= 0
        if part != "warm_click":  # medians of parts do not add up to the median of the whole
            assert sum(hops.values()) == pytest.approx(2 * hops["total"], rel=0.02, abs=0.1)
    assert found["warm_click"]["prompt encoder and mask decoder"] > 1
    said = terminal.run("profile", photo, "--clicks", "2").stdout
    assert "warm click" in said
    assert "stored already" in said


def test_everything_writes_masks_a_data_set_and_a_picture(terminal: Terminal, stack: Stack, photo: Path) -> None:
    options = ("--points-per-side", "3", "--pred-iou-thresh", "0.05", "--stability-score-thresh", "0.3")
    options += ("--stability-score-offset", "0.2")
    summary = json.loads(terminal.run("everything", photo, "-o", "masks", "--json", *options).stdout)
    with stack.client() as client:
        masks = client.everything(
            photo, points_per_side=3, pred_iou_thresh=0.05, stability_score_thresh=0.3, stability_score_offset=0.2
        )
    assert summary["masks"] == len(masks) > 0
    folder = terminal.folder / "masks"
    assert Image.open(folder / "overlay.png").size == (600, 400)
    dataset = json.loads((folder / "coco.json").read_text())
    for number, (mask, annotation) in enumerate(zip(masks, dataset["annotations"], strict=True)):
        assert annotation["segmentation"] == mask.rle
        np.testing.assert_array_equal(np.array(Image.open(folder / f"mask-{number:04}.png")) > 0, mask.array)
    printed = terminal.run("everything", photo, "-o", "one.json", *options).stdout
    assert printed.startswith(f"{len(masks)} masks in ")
    assert json.loads((terminal.folder / "one.json").read_text()) == dataset
    assert Image.open(terminal.folder / "one.overlay.png").size == (600, 400)
    assert "--output" in terminal.run("everything", photo, "-o", "/proc/x", *options, code=1).stderr
