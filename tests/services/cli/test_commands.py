"""The command line against running services."""

import functools
import hashlib
import io
import json
import os
import subprocess
import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from maskwire.cli.free_ports import free_port
from maskwire.cli.inputs import embed_file, find_input
from maskwire.cli.options import EmbeddingOptions
from PIL import Image
from pycocotools import mask as coco

from testing.servers import Stack
from testing.warm import run_module
from testing.web_server import answering


class Terminal:
    """Runs maskwire commands in a folder."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, **stack.environment}

    def run(self, *arguments: str | Path, code: int = 0, typed: str = "") -> subprocess.CompletedProcess[str]:
        words = map(str, arguments)
        result = run_module("maskwire.cli", *words, environment=self.environment, folder=self.folder, typed=typed)
        assert result.returncode == code, result.stderr + result.stdout
        assert "Traceback" not in result.stderr
        return result


@pytest.fixture
def terminal(stack: Stack, tmp_path: Path) -> Terminal:
    return Terminal(stack, tmp_path)


def test_segment_looks_at_a_region(terminal: Terminal, stack: Stack, photo: Path) -> None:
    with stack.client() as client:
        expected = client.segment(photo, box=(330, 90, 420, 160), region=(300, 50, 500, 200)).mask
    terminal.run("segment", photo, "--box", "330,90,420,160", "--region", "300,50,500,200", "-o", "mask.png")
    np.testing.assert_array_equal(np.asarray(Image.open(terminal.folder / "mask.png")) == 255, expected)
    said = terminal.run("segment", photo, "--point", "330,90", "--region", "1,2", "-o", "mask.png", code=2)
    assert "X0,Y0,X1,Y1" in said.stderr


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
    assert [mask["object"] for mask in summary["masks"]] == [0, 0, 0]
    assert summary["files"] == ["m-0.png", "m-1.png", "m-2.png"]
    assert summary["timings"]["decode_ms"] > 0


def test_segment_by_box_by_name_and_with_nothing(terminal: Terminal, photo: Path) -> None:
    terminal.run("segment", photo, "--box", "75,50,500,380", "--image-id", "cli-photo", "-o", "box.png")
    terminal.run("segment", "cli-photo", "--point", "300,200", "--single", "-o", "named.png")
    terminal.run("segment", "--image-id", "cli-photo", "--point", "300,200", "-o", "named.png")
    terminal.run("segment", photo, "--model", "demo", "-o", "nothing.png")
    assert "served here: demo" in terminal.run("segment", photo, "--model", "dmo", code=1).stderr
    assert {path.name for path in terminal.folder.iterdir()} == {"box.png", "named.png", "nothing.png"}


def test_errors_are_one_line_with_a_remedy(terminal: Terminal, photo: Path) -> None:
    cases = [
        (
            ("segment", photo, "--point", "900,10"),
            "prompts[0].points[0].x_px: 900 is outside of the image, which is 600 px wide",
        ),
        (("segment", "no-such-image"), "no image named 'no-such-image' is stored"),
        (("segment", photo, "-o", "mask.xyz"), "with --format"),
        (("segment", photo, "--all", "-f", "png", "-o", "-"), "3 pictures cannot go to standard output"),
        (("segment", "missing.jpg", "--encoder", "localhost:1"), "no such file: missing.jpg"),
        (("segment", "deep/photo", "--encoder", "localhost:1"), "no such file: deep/photo"),
        (("segment", ".", "--encoder", "localhost:1"), ". is a folder"),
        (("everything", "missing.jpg", "-o", "m", "--encoder", "localhost:1"), "no such file: missing.jpg"),
        (("segment", photo, photo, "-o", "m.png"), "2 images cannot be written to one file"),
        (("segment", photo, "-b", "1,1,9,9", "-b", "2,2,9,9", "-p", "3,3"), "--prompts FILE"),
        (("segment", "-"), "standard input is empty"),
        (("everything", photo, "-o", "m.gif"), "m.gif is neither a .json file nor a picture"),
        (("everything", "named", "-o", "m.png"), "is the name of a stored image"),
        (("segment", "named", "--model", "demo"), "is stored already"),
        (("segment", photo, "-o", "/proc/mask.png"), "cannot write /proc/mask.png"),
        (("segment", photo, "--decoder", ","), "has no address"),
        (("embed", "missing.jpg", "--encoder", "localhost:1"), "no such file: missing.jpg"),
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
    assert f"no decoder answers at {down}" in result.stderr
    result = terminal.run("status", "encoder", "--encoder", stack.decoder, code=1)
    assert f"{stack.decoder} is not an encoder; give the right --encoder" in result.stderr
    result = terminal.run("status", "decoder", "--decoder", stack.encoder, code=1)
    assert f"{stack.encoder} is not a decoder; give the right --decoder" in result.stderr


def test_help_teaches(terminal: Terminal) -> None:
    said = terminal.run("--help").stdout
    for word in ("maskwire up", "segment", "embed", "status", "pixels"):
        assert word in said
    assert terminal.run("--version").stdout == f"maskwire {version('maskwire')}\n"
    assert "Did you mean 'segment'?" in terminal.run("segmnt", code=2).stderr
    assert "--format" in terminal.run("segment", "photo", "--frmat", "png", code=2).stderr
    for command in ("segment", "embed", "status", "up"):
        assert "Usage" in terminal.run(command, "--help").stdout


def test_clicking_in_the_terminal(terminal: Terminal, photo: Path) -> None:
    typed = "260, 130\n-300,330\nundo\nundo\nredo\nhelp\nnonsense\n999,1\nbox 135,40,500,345\nsave kept.png\nquit\n"
    output = terminal.run("click", photo, typed=typed).stdout
    assert "this list" in output
    assert output.count("object-1: score") == 5
    assert "object-1: no mask" in output
    assert "no command 'nonsense'" in output
    assert "x: 999 is outside of the image" in output
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
    assert {path.name for path in terminal.folder.iterdir()} == {"masks", "one.json"}
    assert "--output" in terminal.run("everything", photo, "-o", "/proc/x", *options, code=1).stderr


def test_everything_into_a_picture_and_to_standard_output(terminal: Terminal, photo: Path) -> None:
    options = ("--points-per-side", "4")
    printed = terminal.run("everything", photo, "-o", "-", *options)
    dataset = json.loads(printed.stdout)
    assert dataset["annotations"]  # by the thresholds of the demo model
    terminal.run("everything", photo, "-o", "m.png", *options)
    assert {path.name for path in terminal.folder.iterdir()} == {"m.png"}
    picture = Image.open(terminal.folder / "m.png")
    assert (picture.format, picture.size) == ("PNG", (600, 400))
    strict = terminal.run("everything", photo, "-o", "none.json", *options, "--pred-iou-thresh", "0.8")
    assert strict.stdout.startswith("0 masks in ")
    assert "To keep more, lower pred_iou_thresh to 0." in strict.stderr
    summary = json.loads(terminal.run("everything", photo, "-o", "none.json", *options, "--json").stdout)
    assert summary["masks"] + sum(summary["removed"].values()) == 48


def test_standard_input_and_output_are_binary_safe(terminal: Terminal, photo: Path) -> None:
    click = ("--point", "300,200")
    terminal.run("segment", photo, *click, "-o", "file.png")
    command = [sys.executable, "-m", "maskwire.cli", "segment", "-", *click, "-f", "png", "-o", "-"]
    environment = terminal.environment
    result = subprocess.run(command, input=photo.read_bytes(), capture_output=True, env=environment, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout == (terminal.folder / "file.png").read_bytes()
    # A terminal gets a hint instead of bytes.
    primary, secondary = os.openpty()
    refused = subprocess.run(
        [*command[:4], str(photo), *command[5:]], stdout=secondary, stderr=subprocess.PIPE, env=environment, timeout=120
    )
    os.close(secondary)
    os.close(primary)
    assert refused.returncode == 1
    assert b"standard output is a terminal" in refused.stderr


def test_the_same_file_has_the_same_name(terminal: Terminal, photo: Path) -> None:
    names = {json.loads(terminal.run("segment", photo, "--json").stdout)["image_id"] for _ in range(2)}
    names.add(json.loads(terminal.run("embed", photo, "--json").stdout)["image_id"])
    assert names == {f"sha256-{hashlib.sha256(photo.read_bytes()).hexdigest()}"}
    assert list(terminal.folder.iterdir()) == []  # --json writes no picture unasked


def test_a_file_is_hashed_once(stack: Stack, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sha256, hashed = hashlib.sha256, []

    def noting(data: bytes) -> Any:
        hashed.append(len(data))
        return sha256(data)

    monkeypatch.setattr(hashlib, "sha256", noting)
    with stack.client() as client:
        for image in (photo, "-"):
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(photo.read_bytes())))
            embed_file(client, find_input(str(image)), EmbeddingOptions())
    assert hashed.count(photo.stat().st_size) == 2


def test_several_images_and_objects(terminal: Terminal, photo: Path) -> None:
    other = terminal.folder / "other.png"
    Image.open(photo).resize((300, 200)).save(other)
    boxes = ("--box", "20,20,200,150", "--box", "100,60,290,190")
    lines = terminal.run("segment", photo, other, *boxes, "--json").stdout.splitlines()
    found = [json.loads(line) for line in lines]
    assert [(each["image"], each["width"], len(each["masks"])) for each in found] == [
        (str(photo), 600, 2),
        (str(other), 300, 2),
    ]
    assert [mask["object"] for mask in found[0]["masks"]] == [0, 1]
    terminal.run("segment", photo, other, *boxes, "-f", "png", "-o", "masks")
    names = {path.name for path in (terminal.folder / "masks").iterdir()}
    assert names == {f"{stem}.mask-{index}.png" for stem in ("coffee", "other") for index in (0, 1)}
    (terminal.folder / "bad.jpg").write_bytes(b"no image")
    result = terminal.run("segment", "bad.jpg", other, "--json", code=1)
    bad, good = (json.loads(line) for line in result.stdout.splitlines())
    assert (bad["image"], good["image"]) == ("bad.jpg", str(other))
    assert bad["error"]["message"]
    assert "1 of 2 images failed" in result.stderr


def test_prompts_from_files(terminal: Terminal, photo: Path) -> None:
    folder = terminal.folder / "data"
    folder.mkdir()
    Image.open(photo).save(folder / "a.png")
    Image.open(photo).resize((300, 200)).save(folder / "b.png")
    (folder / "p.jsonl").write_text(
        '{"image": "a.png", "box": [135, 40, 500, 345], "class": "cup", "id": 7}\n'
        '{"image": "b.png", "points": [[150, 100], [10, 190]], "labels": [1, 0]}\n'
        '{"image": "a.png", "points": [[260, 130]], "class": "coffee"}\n'
    )
    (folder / "p.csv").write_text(
        "image,id,class,x,y,label,x_min,y_min,x_max,y_max\n"
        "a.png,7,cup,,,,135,40,500,345\n"
        "b.png,o,,150,100,1,,,,\n"
        "b.png,o,,10,190,0,,,,\n"
        "a.png,,coffee,260,130,,,,,\n"
    )
    found = {}
    for file in ("p.jsonl", "p.csv"):
        lines = terminal.run("segment", "--prompts", f"data/{file}", "--json").stdout.splitlines()
        found[file] = [[mask["rle"] for mask in json.loads(line)["masks"]] for line in lines]
        first = json.loads(lines[0])["masks"]
        assert [(mask["id"], mask["class"]) for mask in first] == [("7", "cup"), ("", "coffee")]
    assert found["p.jsonl"] == found["p.csv"]

    terminal.run("segment", "--prompts", "data/p.jsonl", "-f", "coco", "-o", "coco.json")
    dataset = json.loads((terminal.folder / "coco.json").read_text())
    assert [category["name"] for category in dataset["categories"]] == ["cup", "coffee", "object"]
    assert [(each["id"], each["image_id"], each["category_id"]) for each in dataset["annotations"]] == [
        (1, 1, 1),
        (2, 1, 2),
        (3, 2, 3),
    ]
    terminal.run("segment", "--prompts", "data/p.jsonl", "-f", "yolo", "-o", "labels")
    assert (terminal.folder / "labels/classes.txt").read_text() == "cup\ncoffee\nobject\n"
    lines = (terminal.folder / "labels/a.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["0", "1"]
    for line, rle in zip(lines, found["p.jsonl"][0], strict=True):
        corners = np.array(line.split()[1:], float).reshape(-1, 2) * (600, 400)
        drawn = np.zeros((400, 600), np.uint8)
        cv2.fillPoly(drawn, [corners.round().astype(np.int32)], 1)
        mask = coco.decode({**rle, "counts": rle["counts"].encode()})
        assert (drawn & mask).sum() / (drawn | mask).sum() > 0.9

    cases = [
        ('{"image": "a.png", "pionts": [[1, 1]]}', "line 1: no field 'pionts'; did you mean 'points'?"),
        ('{"box": [1, 2, 3, 4]}', "line 1: names no image"),
        ('\n{"image": "a.png", "box": [1, 2, 3]}', "line 2: box: a box is"),
        ("no", "line 1: is not JSON"),
        ("", "has no prompts"),
    ]
    for text, message in cases:
        (folder / "wrong.jsonl").write_text(text)
        assert message in terminal.run("segment", "--prompts", "data/wrong.jsonl", code=1).stderr


def test_a_closed_pipe_is_no_error(terminal: Terminal, photo: Path) -> None:
    command = f"{sys.executable} -m maskwire.cli segment {photo} {photo} {photo} --json | head -c 5"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=terminal.environment)
    assert result.stdout == '{"ima'
    assert "Traceback" not in result.stderr
    assert "BrokenPipe" not in result.stderr


def test_an_image_at_a_url(terminal: Terminal, photo: Path) -> None:
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(photo.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as served, answering(served):
        url = f"http://127.0.0.1:{served.server_address[1]}"
        found = [
            json.loads(terminal.run("segment", image, "-p", "300,200", "--json").stdout)
            for image in (photo, f"{url}/{photo.name}")
        ]
        assert found[0]["masks"] == found[1]["masks"]
        assert found[0]["image_id"] == found[1]["image_id"]
        terminal.run("segment", f"{url}/{photo.name}", "-p", "300,200")
        assert (terminal.folder / "coffee.overlay.png").exists()
        assert "answered 404" in terminal.run("segment", f"{url}/none.jpg", code=1).stderr


def test_stored_images_are_listed_and_deleted(terminal: Terminal, photo: Path) -> None:
    for name in ("list/a", "list/b"):
        terminal.run("embed", photo, "--image-id", name)
    found = json.loads(terminal.run("images", "--prefix", "list/", "--json").stdout)["images"]
    assert [(image["image_id"], image["width"], image["height"]) for image in found] == [
        ("list/a", 600, 400),
        ("list/b", 600, 400),
    ]
    assert "list/a" in terminal.run("images").stdout
    long_name = "list/" + "c" * 120
    terminal.run("embed", photo, "--image-id", long_name)
    assert long_name in terminal.run("images").stdout  # whole, so that it can be given to another command
    terminal.run("delete", long_name)
    assert terminal.run("delete", "list/a").stdout == "list/a: deleted\n"
    assert "no image named 'list/a' is stored" in terminal.run("delete", "list/a", code=1).stderr
    assert "1 images whose names begin with 'list/'" in terminal.run("images", "--prefix", "list/").stderr
