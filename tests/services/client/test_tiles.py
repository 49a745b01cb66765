"""Everything in large pictures, tile by tile."""

import json
import os
import signal
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import grpc
import numpy as np
import pytest
from maskwire.automatic_masks import FoundMask
from maskwire.tiles import tiles_of
from maskwire.v1 import decoder_pb2, encoder_pb2, encoder_pb2_grpc, types_pb2
from numpy.typing import NDArray
from PIL import Image

from testing.processes import wait_until
from testing.servers import Stack
from testing.warm import run_module, running_module


class Disc(NamedTuple):
    x: int
    y: int
    radius: int


def made(width: int, height: int, discs: list[Disc]) -> NDArray[np.uint8]:
    """A picture of discs on a grey ground."""
    picture = np.full((height, width, 3), 200, np.uint8)
    for number, disc in enumerate(discs):
        colour = [(50, 60, 120), (120, 50, 40), (30, 100, 60)][number % 3]
        cv2.circle(picture, (disc.x, disc.y), disc.radius, colour, -1)
    return picture


def best_iou(disc: Disc, masks: list[Any]) -> float:
    """IoU of a disc with the mask that is closest to it."""
    best = 0.0
    y, x = np.ogrid[-disc.radius : disc.radius + 1, -disc.radius : disc.radius + 1]
    truth = x * x + y * y <= disc.radius**2
    for mask in masks:
        x0, y0, x1, _ = mask.box
        if abs(x0 - disc.x + disc.radius) + abs(y0 - disc.y + disc.radius) > disc.radius + 4:
            continue
        if not 0.5 < (x1 - x0) / (2 * disc.radius) < 2:
            continue
        array = mask.array
        part = array[disc.y - disc.radius : disc.y + disc.radius + 1, disc.x - disc.radius : disc.x + disc.radius + 1]
        both = np.count_nonzero(part & truth)
        best = max(best, both / (mask.area + truth.sum() - both))
    return best


def test_objects_on_seams_are_found_once(stack: Stack) -> None:
    discs = [Disc(300, 300, 90), Disc(1024, 700, 110), Disc(512, 1200, 80), Disc(1900, 1100, 200), Disc(2200, 200, 80)]
    with stack.client(namespace="tiles") as client:
        image = client.embed(made(2400, 1600, discs), image_id="made", tiles=True)
        encoded = encoded_by(stack)
        updates = list(client.generate_masks(image, tiles=True, points_per_side=8))
        assert encoded_by(stack) == encoded  # they were embedded ahead
        last = updates[-1]
        assert (last.is_last, last.done) == (True, last.total)
        assert len(updates) == len(list(tiles_of(2400, 1600))) + 1
        assert (last.image.width_px, last.image.height_px) == (2400, 1600)
        assert [round(best_iou(disc, last.masks), 1) >= 0.8 for disc in discs] == [True] * len(discs)
        assert [each.image_id for each in client.images()] == ["made"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_job_that_is_killed_goes_on_and_repeats_nothing(stack: Stack, tmp_path: Path) -> None:
    sides = np.random.default_rng(1).permutation(np.geomspace(160, 700, 9).round().astype(int))
    discs = [Disc(400 + 800 * (n % 3), 400 + 800 * (n // 3), int(side) // 2) for n, side in enumerate(sides)]
    Image.fromarray(made(2400, 2400, discs)).save(tmp_path / "large.png")
    journal, output = tmp_path / "journal", tmp_path / "coco.json"
    words = ["everything", str(tmp_path / "large.png"), "--tiles", "--journal", str(journal), "-o", str(output)]
    words += ["--points-per-side", "8", "--namespace", "killed"]
    encoded = encoded_by(stack)
    with running_module("maskwire.cli", *words, environment=stack.environment) as process:
        wait_until(lambda: journal.exists() and journal.read_bytes().count(b"\n") > 4, process=process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    done = journal.read_bytes().count(b"\n")
    finished = run_module("maskwire.cli", *words, environment=stack.environment, timeout=600)
    assert finished.returncode == 0, finished.stderr
    tiles = len(list(tiles_of(2400, 2400))) + 1
    lines = journal.read_text().splitlines()
    assert len(lines) == tiles + 1
    assert len({json.dumps(json.loads(line)["tile"]) for line in lines[1:]}) == tiles  # none was clicked again
    assert 5 <= done < tiles
    assert encoded_by(stack) - encoded == tiles  # nor encoded again
    annotations = json.loads(output.read_text())["annotations"]
    masks = [FoundMask(_message(each)) for each in annotations]
    ious = [best_iou(disc, masks) for disc in discs]
    assert min(ious) >= 0.8, ious


def _message(annotation: dict[str, Any]) -> decoder_pb2.GeneratedMask:
    """A mask of a COCO data set, as far as `best_iou` needs it."""
    x, y, width, height = annotation["bbox"]
    box = types_pb2.Box(x_min_px=x, y_min_px=y, x_max_px=x + width - 1, y_max_px=y + height - 1)
    rle = types_pb2.Rle(size=annotation["segmentation"]["size"], counts=annotation["segmentation"]["counts"])
    return decoder_pb2.GeneratedMask(rle=rle, box=box, area_px=int(annotation["area"]))


def encoded_by(stack: Stack) -> int:
    """How many images the encoder has encoded."""
    with grpc.insecure_channel(stack.encoder) as channel:
        return int(encoder_pb2_grpc.EncoderServiceStub(channel).GetLoad(encoder_pb2.GetLoadRequest()).encoded)
