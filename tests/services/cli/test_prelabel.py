"""`maskwire prelabel` over the real servers: masks, errors, shards, and what is left of a job that is killed."""

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from testing.servers import Stack
from testing.warm import Warm, run_module

BOX = (135, 40, 500, 345)
JOB = ("prelabel", "images", "--boxes", "boxes.json", "--out")


class Job:
    """A folder with images and boxes, in which the command runs."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, **stack.environment}
        (folder / "images").mkdir()

    def make(self, count: int, seed: int, different: int) -> None:
        """Makes small images of noise with bright rectangles, and boxes around the rectangles. So many are different;
        the others are copies, which are encoded no more than once."""
        images, annotations = [], []
        for number in range(count):
            noise = np.random.default_rng((seed, number % different))
            pixels = noise.integers(0, 90, (24, 32, 3), np.uint8)
            x, y = (int(value) for value in noise.integers(1, 12, 2))
            pixels[y : y + 9, x : x + 14] += 120
            name = f"{number % 5}/{number:03}.png"
            (self.folder / "images" / name).parent.mkdir(exist_ok=True)
            Image.fromarray(pixels).save(self.folder / "images" / name)
            images.append({"id": 1000 - number, "file_name": name, "width": 32, "height": 24})
            for offset in range(1 + number % 2):
                annotations.append(
                    {
                        "id": len(annotations),
                        "image_id": 1000 - number,
                        "category_id": 1,
                        "bbox": [x - offset, y, 14, 9],
                    }
                )
        self.write(images, annotations)

    def write(self, images: list[Any], annotations: list[Any]) -> None:
        dataset = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
        (self.folder / "boxes.json").write_text(json.dumps(dataset))

    def run(self, *words: str, code: int = 0, environment: dict[str, str] | None = None) -> tuple[str, str]:
        """Runs a command to its end. Returns what it wrote to standard output and standard error."""
        ran = run_module(
            "maskwire.cli", *words, environment={**self.environment, **(environment or {})}, folder=self.folder
        )
        assert ran.returncode == code, ran.stderr + ran.stdout
        assert "Traceback" not in ran.stderr
        return ran.stdout, ran.stderr

    def start(self, *words: str) -> Warm:
        files = (None, self.folder / "said", self.folder / "said")
        return Warm("maskwire.cli", list(words), self.environment, self.folder, files)

    def lines(self, journal: str = "masks.json.journal") -> list[bytes]:
        path = self.folder / journal
        return path.read_bytes().splitlines() if path.exists() else []

    def read(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())


@pytest.fixture
def job(stack: Stack, tmp_path: Path) -> Job:
    return Job(stack, tmp_path)


def test_boxes_become_the_masks_of_segment(job: Job, stack: Stack, photo: Path) -> None:
    shutil.copy(photo, job.folder / "images" / "a.jpg")
    annotations: list[dict[str, Any]] = [
        {"id": 10, "bbox": [135, 40, 365, 305], "attributes": {"occluded": True}, "iscrowd": 0, "score": 0.25},
        {"id": 11, "bbox": [300, 200, 310, 210]},  # ends outside
        {"id": 12, "bbox": [1, 1, 2, 2], "segmentation": [[1, 1, 3, 1, 3, 3]]},
        {"id": 13, "bbox": [700, 10, 20, 20]},
        {"id": 14},
    ]
    annotations = [{**each, "image_id": "a", "category_id": 1} for each in annotations]
    job.write([{"id": "a", "file_name": "a.jpg", "width": 600, "height": 400}], annotations)
    out, said = job.run(*JOB, "masks.json")
    assert out == "masks.json: 2 masks of 1 images, 1 boxes without a mask\n"
    assert "a.jpg: annotation 13 stays as it is: the box [700, 10, 20, 20] has no area within the image" in said
    assert "demo model" in said
    with stack.client() as client:
        expected, clipped = client.segment_objects(photo, boxes=[BOX, (300, 200, 600, 400)], multimask=False)
    first, second, *others = job.read("masks.json")["annotations"]
    made = {name: expected.to_coco()[name] for name in ("segmentation", "area", "score")}
    assert first == {**annotations[0], **made, "box_score": 0.25}
    assert second["segmentation"] == clipped.rle
    assert others == annotations[2:]

    options = ("--polygons", "--tight-boxes", "--replace", "--json")
    summary = json.loads(job.run(*JOB, "deep/polygons.json", *options)[0])
    assert summary == {
        "output": "deep/polygons.json",
        "done_before": 0,
        "images": 1,
        "done": 1,
        "masks": 3,
        "skipped": 1,
        "failed": [],
    }
    first = job.read("deep/polygons.json")["annotations"][0]
    polygons = coco.merge(coco.frPyObjects(first["segmentation"], 400, 600))
    np.testing.assert_array_equal(coco.decode(polygons).astype(bool), expected.mask)
    assert first["bbox"] == expected.to_coco()["bbox"]


def test_images_that_fail_are_said_and_tried_again(job: Job) -> None:
    job.make(4, seed=1, different=4)
    dataset = job.read("boxes.json")
    broken = job.folder / "images" / dataset["images"][0]["file_name"]
    content = broken.read_bytes()
    broken.write_bytes(b"no picture")
    dataset["images"][1]["file_name"] = "missing.png"
    dataset["images"][2]["width"] = 31
    dataset["images"].append({"id": 1, "file_name": "../boxes.json"})
    dataset["annotations"].append({"id": 99, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]})
    job.write(dataset["images"], dataset["annotations"])
    out, said = job.run(*JOB, "masks.json", code=1)
    assert out == "masks.json: 2 masks of 1 images, 4 images failed\n"
    for message in (
        "0/000.png: error: the file is text",
        "missing.png: error: no such file: images/missing.png",
        "2/002.png: error: the file is 32x24 px as a viewer shows it, but the data set says 31x24",
        "../boxes.json: error: ../boxes.json is outside of the folder of images",
        "error: 4 of 5 images failed; the same command tries them again",
    ):
        assert message in said
    with_masks = [each["id"] for each in job.read("masks.json")["annotations"] if "segmentation" in each]
    assert with_masks == [each["id"] for each in dataset["annotations"] if each["image_id"] == 997]

    broken.write_bytes(content)
    shutil.copy(broken, job.folder / "images" / "missing.png")
    summary = json.loads(job.run(*JOB, "masks.json", "--json", code=1)[0])
    assert (summary["done"], summary["done_before"], len(summary["failed"])) == (3, 1, 2)
    assert [each["error"]["reason"] for each in summary["failed"]] == ["OTHER_SIZE", "BAD_FILE_NAME"]


def test_servers_that_are_away_stop_the_job_and_fail_no_image(job: Job) -> None:
    job.make(3, seed=2, different=1)
    _, said = job.run(*JOB, "masks.json", "--encoder", "localhost:1", "--retry-s", "0.1", code=1)
    assert "cannot reach the encoder" in said
    assert not (job.folder / "masks.json.journal").exists()
    _, said = job.run(*JOB, "masks.json", "--decoder", "localhost:1", "--retry-s", "0.1", code=1)
    assert "masks.json.journal: 0 of 3 images are done; the same command goes on" in said
    assert "cannot reach the decoder" in said
    assert len(job.lines()) == 1  # the header
    assert "no model 'dmo'" in job.run(*JOB, "other.json", "--model", "dmo", code=1)[1]
    header = json.loads(job.lines()[0])
    (job.folder / "masks.json.journal").write_text(json.dumps({**header, "fingerprint": "another"}) + "\n")
    assert "the model 'demo' is not the one that" in job.run(*JOB, "masks.json", code=1)[1]


def test_shards_merge_to_the_undivided_job(job: Job) -> None:
    job.make(11, seed=3, different=3)
    job.run(*JOB, "whole.json")
    for index in range(3):
        out, _ = job.run(*JOB, "masks.json", "--shard", "/3", environment={"JOB_COMPLETION_INDEX": str(index)})
        assert out.startswith(f"masks.json.shard-{index + 1}-of-3: ")
    merged, _ = job.run("merge-shards", "--boxes", "boxes.json", "--out", "masks.json")
    assert merged == "masks.json: 16 masks of 11 images\n"
    assert (job.folder / "masks.json").read_bytes() == (job.folder / "whole.json").read_bytes()


def interrupt(job: Job, counts: Sequence[int], signals: Sequence[int]) -> None:
    """Runs the job and sends it a signal as soon as its journal has so many lines, again and again."""
    for count, number in zip(counts, signals, strict=True):
        process = job.start(*JOB, "masks.json")
        deadline = time.monotonic() + 200
        while len(job.lines()) < count:
            assert process.poll() is None, (job.folder / "said").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        os.kill(process.pid, number)
        code = process.wait(100)
        assert code == (-number if number == signal.SIGKILL else 128 + number), (job.folder / "said").read_text()


def check_undisturbed(job: Job, images: int) -> None:
    """Finishes the job, and compares it with one that nothing disturbed: every image was written down once."""
    job.run(*JOB, "masks.json")
    done = [line["image"] for line in map(json.loads, job.lines()) if "masks" in line]
    assert sorted(done) == list(range(images))
    job.run(*JOB, "undisturbed.json")
    assert (job.folder / "masks.json").read_bytes() == (job.folder / "undisturbed.json").read_bytes()
    assert all(each["segmentation"]["counts"] for each in job.read("masks.json")["annotations"])
    assert "Traceback" not in (job.folder / "said").read_text()


def test_a_job_that_is_killed_and_stopped_loses_and_repeats_nothing(job: Job) -> None:
    job.make(60, seed=4, different=6)
    interrupt(job, (2, 5, 8, 10), (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGINT))
    assert "finishing the images that are under way" in (job.folder / "said").read_text()
    assert "images are done; the same command goes on" in (job.folder / "said").read_text()
    check_undisturbed(job, 60)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_500_images_killed_ten_times(job: Job) -> None:
    job.make(500, seed=5, different=500)
    counts = sorted(random.Random(6).sample(range(1, 450), 10))
    interrupt(job, counts, [signal.SIGKILL] * 10)
    check_undisturbed(job, 500)
