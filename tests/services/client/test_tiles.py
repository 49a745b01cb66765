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
import tifffile
from maskwire import InvalidRequest, LargeTiff
from maskwire.automatic_masks import FoundMask
from maskwire.tiles import tiles_of
from maskwire.v1 import decoder_pb2, encoder_pb2, encoder_pb2_grpc, types_pb2
from numpy.typing import NDArray
from PIL import Image

from testing.processes import wait_until
from testing.servers import Stack
from testing.warm import run_module, running_module
from testing.wire import details, frames
from testing.wire import picture as picture_file


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
    lines = journal.read_text().splitlines()
    tiles = {json.dumps(json.loads(line)["tile"]) for line in lines[1:]}
    assert len(tiles) == len(lines) - 1  # none was clicked again
    assert 5 <= done < len(tiles) <= len(list(tiles_of(2400, 2400))) + 1
    assert len(tiles) <= encoded_by(stack) - encoded <= len(tiles) + 1  # nor encoded, but what was under way
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


def test_a_large_tiff_is_read_by_windows(stack: Stack, encoder: Any, tmp_path: Path) -> None:
    discs = [Disc(700, 600, 100), Disc(3900, 1500, 30)]
    picture = made(4400, 2000, discs)
    tifffile.imwrite(tmp_path / "large.tif", picture, tile=(256, 256), photometric="rgb", compression="zlib")
    with stack.client(namespace="tiff") as client:
        large = LargeTiff(tmp_path / "large.tif")
        image = client.embed(large)
        assert (image.width, image.height) == (4400, 2000)
        place = (3800, 1400, 4000, 1600)
        small: Any = {"box": (3868, 1468, 3932, 1532), "region": place}
        result = client.segment(large, **small)
        np.testing.assert_array_equal(result.mask, client.segment(picture, **small).mask)
        assert best_iou(discs[1], [result.best]) > 0.8
        # The whole is a smaller version, in whose masks pixels are those of the file.
        coarse = client.segment(image, box=(600, 500, 800, 700))
        assert coarse.mask.shape == (2000, 4400)
        assert best_iou(discs[0], [coarse.best]) > 0.6
        assert client.segment(image, points=[(3900, 1500)], region="auto").region is not None
        # So are regions of more than 4,096 pixels.
        most = client.segment(image, box=(600, 500, 800, 700), region=(0, 0, 4200, 2000))
        assert best_iou(discs[0], [most.best]) > 0.6
        for wrong in ({"stretch": "range"}, {"channels": "bgr"}):
            with pytest.raises(InvalidRequest, match="says itself how it is read"):
                client.embed(large, **wrong)

    def refused(**fields: Any) -> tuple[str, str, str]:
        with pytest.raises(grpc.RpcError) as caught:
            encoder.EncodeImage(frames(picture_file(8), **fields))  # 60x40
        return details(caught.value)

    whole = encoder.EncodeImage(frames(picture_file(8))).image
    part: Any = {"region": types_pb2.Box(x_max_px=60, y_max_px=40), "region_of": whole.content_key}
    assert refused(width_px=61, height_px=40, **part)[1:] == ("BAD_SIZE", "header.width_px")
    for width, height in ((4400, 0), (0, 2000), (1 << 16, 1 << 15), (59, 40)):
        assert refused(width_px=width, height_px=height)[1:] == ("BAD_SIZE", "header.width_px")
    smaller = encoder.EncodeImage(frames(picture_file(8), width_px=30000, height_px=20000)).image
    assert (smaller.width_px, smaller.height_px) == (30000, 20000)
    assert smaller.content_key != whole.content_key
    with stack.client() as client:  # masks of such a size are not made as pixels
        with pytest.raises(InvalidRequest) as caught:
            client.segment(smaller.image_id, points=[(2, 2)], outputs=("rle", "png"))
        assert (caught.value.reason, caught.value.field) == ("MASK_TOO_LARGE", "output.formats")
        assert client.segment(smaller.image_id, points=[(15000, 9000)]).best.rle["size"] == [20000, 30000]
