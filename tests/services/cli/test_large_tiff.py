"""The command line on TIFF files that are read by windows."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from maskwire import LargeTiff
from pycocotools import mask as coco

from testing.processes import wait_until
from testing.servers import Stack
from testing.warm import run_module, running_module

DISCS = ((300, 280, 60), (512, 700, 90), (1300, 500, 130))
READING = ("--large-tiff", "--bands", "2,0,3", "--levels", "100,4000")
LIKEWISE: Any = {"bands": (2, 0, 3), "stretch": (100.0, 4000.0)}
TILES = ("--tiles", "--tile-px", "512", "--points-per-side", "8")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A BigTIFF of four bands of 16 bits, in tiles; what is to be seen is in the first, the third and the last."""
    samples = np.random.default_rng(2411).integers(2900, 3100, (1200, 1600, 4), np.uint16)
    samples[..., 1] = 65535
    for number, (x, y, radius) in enumerate(DISCS):
        levels = [(800, 1900, 1000), (1000, 700, 1800), (1500, 600, 600)][number]
        mask = np.zeros(samples.shape[:2], np.uint8)
        cv2.circle(mask, (x, y), radius, 1, -1)
        for band, level in zip((0, 2, 3), levels, strict=True):
            samples[..., band][mask > 0] = level
    path = tmp_path / "bands.tif"
    tifffile.imwrite(path, samples, tile=(256, 256), photometric="minisblack", planarconfig="contig", bigtiff=True)
    return path


def pixels(rle: Any) -> Any:
    return coco.decode({"size": rle["size"], "counts": rle["counts"].encode()}).astype(bool)


def test_a_large_tiff_is_segmented_by_windows(stack: Stack, file: Path, tmp_path: Path) -> None:
    large = LargeTiff(file, **LIKEWISE)
    with stack.client(namespace="cli-tiff") as client:
        expected = client.segment(large, points=[(300, 280)], region="auto")
    words = ["segment", str(file), *READING, "--point", "300,280", "--region", "auto", "--namespace", "cli-tiff"]
    done = run_module("maskwire.cli", *words, environment=stack.environment, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "bands.rle.json").read_text())  # not an overlay: that takes the whole picture
    assert (written["width"], written["height"]) == (1600, 1200)
    np.testing.assert_array_equal(pixels(written["masks"][0]["rle"]), expected.mask)
    assert expected.mask[250:310, 270:330].mean() > 0.9  # the bands were read: in the others nothing is to be seen
    assert expected.area < 4 * np.pi * 60**2
    # Embedded by the same words, it is there already; read in another way, it is another picture.
    for reading, cached in ((READING, True), (READING[:3], False)):
        embed = ["embed", str(file), *reading, "--namespace", "cli-tiff", "--json"]
        said = run_module("maskwire.cli", *embed, environment=stack.environment)
        assert json.loads(said.stdout)["cached"] is cached, said.stderr


def test_everything_goes_on_after_ctrl_c(stack: Stack, file: Path, tmp_path: Path) -> None:
    journal, output, messages = tmp_path / "journal", tmp_path / "coco.json", tmp_path / "messages"
    words = ["everything", str(file), *READING, *TILES, "--journal", str(journal), "-o", str(output)]
    words += ["--namespace", "cli-tiff"]
    with running_module("maskwire.cli", *words, environment=stack.environment, stderr=messages) as process:
        wait_until(lambda: journal.exists() and journal.read_bytes().count(b"\n") > 2, process=process)
        os.kill(process.pid, signal.SIGINT)
        assert process.wait() == 130
    assert f"the same command goes on from what is in {journal}" in messages.read_text()
    assert "Traceback" not in messages.read_text()
    done = journal.read_text().splitlines()
    assert not output.exists()
    finished = run_module("maskwire.cli", *words, environment=stack.environment)
    assert finished.returncode == 0, finished.stderr
    assert journal.read_text().splitlines()[: len(done)] == done
    tiles = [json.dumps(json.loads(line)["tile"]) for line in journal.read_text().splitlines()[1:]]
    assert len(set(tiles)) == len(tiles) >= len(done)
    found = [each["segmentation"] for each in json.loads(output.read_text())["annotations"]]
    with stack.client(namespace="cli-tiff") as client:
        masks = client.everything(LargeTiff(file, **LIKEWISE), tiles=True, tile_px=512, points_per_side=8)
    assert [each["counts"] for each in found] == [mask.rle["counts"] for mask in masks]
    for x, y, radius in DISCS:
        disc = np.zeros((1200, 1600), np.uint8)
        cv2.circle(disc, (x, y), radius, 1, -1)
        ious = coco.iou(
            [coco.encode(np.asfortranarray(disc))],
            [{**m.rle, "counts": m.rle["counts"].encode()} for m in masks],
            [False] * len(masks),
        )
        assert ious.max() > 0.8, (x, y)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("segment", "bands.tif", "--bands", "3,2,1"), "--bands is for TIFFs that are read by windows"),
        (("segment", "bands.tif", "--levels", "1,2"), "--levels is for TIFFs that are read by windows"),
        (("segment", "bands.tif", "--large-tiff", "-f", "overlay"), "an overlay needs all of the picture"),
        (("segment", "bands.tif", "--large-tiff", "--bands", "7"), "bands"),
        (("segment", "bands.tif", "--large-tiff", "--levels", "9,2"), "black and white"),
        (("segment", "bands.tif", "--large-tiff", "--levels", "1,2", "--stretch", "none"), "give one of them"),
        (("segment", "http://localhost:1/a.tif", "--large-tiff"), "is not a file"),
        (("segment", "named", "--large-tiff"), "is stored already"),
        (("everything", "bands.tif", "--large-tiff", "-o", "all.png"), "the output is a .json file"),
        (("everything", "bands.tif", "--large-tiff", "-o", "folder"), "the output is a .json file"),
        (("everything", "bands.tif", "--large-tiff", "-o", "a.json", "--tile-px", "512"), "tile_px is of tiles"),
    ],
)
def test_mistakes_are_told_with_a_remedy(
    stack: Stack, file: Path, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    result = run_module("maskwire.cli", *words, environment=stack.environment, folder=tmp_path)
    assert result.returncode == 1, result.stderr
    assert said in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("wrong", [("--bands", "1,2"), ("--bands", "a"), ("--levels", "1"), ("--band", "1")])
def test_what_cannot_be_read_is_refused_before_anything_is_done(tmp_path: Path, wrong: tuple[str, str]) -> None:
    result = run_module("maskwire.cli", "everything", "none.tif", "--large-tiff", *wrong, "-o", "a.json")
    assert result.returncode == 2
    assert wrong[0] in result.stderr
