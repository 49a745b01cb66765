"""Shards merge to what the undivided job writes, or are refused with what is missing."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from maskwire import InvalidRequest
from maskwire.cli.merge_shards import merge_shards
from maskwire.cli.prelabel_options import MergeShardsOptions
from maskwire.prelabelling import boxes_file, output
from maskwire.prelabelling.journal import Header, writing
from maskwire.prelabelling.shards import Shard

from .conftest import done_line, failed_line, make_header

WriteJournal = Callable[[str | None, Header, list[dict[str, Any]]], Path]


def lines_of(boxes: Path, shard: str, failing: int = -1) -> list[dict[str, Any]]:
    """The lines of a shard that was done, in a random order; of one image, a failure."""
    images = Shard.parse(shard).of(boxes_file.read(boxes, replace=False).images)
    lines = [
        failed_line(image.image, image.file_name)
        if image.image == failing
        else done_line(image.image, image.file_name, tuple(box.annotation for box in image.boxes))
        for image in images
    ]
    random.Random(shard).shuffle(lines)
    return lines


def digest(boxes: Path) -> str:
    return boxes_file.read(boxes, replace=False).sha256


def write_shards(write: WriteJournal, boxes: Path, count: int, failing: int = -1) -> list[Path]:
    names = [f"{number}/{count}" for number in range(1, count + 1)]
    return [write(name, make_header(digest(boxes), name), lines_of(boxes, name, failing)) for name in names]


def options(boxes: Path, *shards: Path, as_json: bool = False) -> MergeShardsOptions:
    return MergeShardsOptions(
        shards=list(shards) or None, boxes=boxes, out=boxes.with_name("masks.json"), as_json=as_json
    )


@pytest.mark.parametrize("count", [1, 2, 3, 11, 20])
def test_merged_shards_are_the_undivided_job(
    boxes: Path, write_journal: WriteJournal, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    write_shards(write_journal, boxes, count)
    whole = output.assemble(json.loads(boxes.read_text()), lines_of(boxes, "1/1"))
    merge_shards(options(boxes))
    merged = boxes.with_name("masks.json")
    assert merged.read_bytes() == whole
    assert capsys.readouterr().out == f"{merged}: 22 masks of 11 images\n"
    before = merged.stat()
    merge_shards(options(boxes))  # again: nothing changes
    assert merged.stat().st_mtime_ns == before.st_mtime_ns


def test_files_may_be_named_in_any_order(boxes: Path, write_journal: WriteJournal) -> None:
    paths = write_shards(write_journal, boxes, 3)
    moved = [path.rename(path.with_name(f"part{number}")) for number, path in enumerate(paths)]
    with pytest.raises(InvalidRequest, match="no shards beside"):
        merge_shards(options(boxes))
    merge_shards(options(boxes, moved[2], moved[0], moved[1]))
    with pytest.raises(InvalidRequest, match="are both the shard 3/3; give one of them"):
        merge_shards(options(boxes, *moved, moved[2]))


def test_failed_images_stay_as_they_are_and_are_said(
    boxes: Path, write_journal: WriteJournal, capsys: pytest.CaptureFixture[str]
) -> None:
    write_shards(write_journal, boxes, 3, failing=4)
    with pytest.raises(SystemExit) as ended:
        merge_shards(options(boxes, as_json=True))
    assert ended.value.code == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["done"], said["images"], said["masks"], said["shards"]) == (10, 11, 20, 3)
    assert [each["image"] for each in said["failed"]] == ["photo-4/04.jpg"]
    annotations = json.loads(boxes.with_name("masks.json").read_text())["annotations"]
    assert [position for position, each in enumerate(annotations) if "segmentation" not in each] == [4, 15]


def test_what_is_missing_is_named(boxes: Path, write_journal: WriteJournal) -> None:
    paths = write_shards(write_journal, boxes, 4)
    merge = options(boxes)
    paths[1].unlink()
    paths[3].unlink()
    with pytest.raises(InvalidRequest, match="shards are missing: 2/4, 4/4; run them, or name their files"):
        merge_shards(merge)
    write_journal("2/4", make_header(digest(boxes), "2/4"), lines_of(boxes, "2/4")[1:])
    write_journal("4/4", make_header(digest(boxes), "4/4"), lines_of(boxes, "4/4"))
    with pytest.raises(InvalidRequest, match="the shard 2/4 lacks 1 of 3 images; run it again"):
        merge_shards(merge)
    assert not boxes.with_name("masks.json").exists()


def test_shards_of_other_jobs_are_refused(boxes: Path, write_journal: WriteJournal) -> None:
    paths = write_shards(write_journal, boxes, 2)
    third = write_journal("3/3", make_header(digest(boxes), "3/3"), [])
    with pytest.raises(InvalidRequest, match="there are shards of 2 and of 3"):
        merge_shards(options(boxes))
    third.unlink()
    paths[1].unlink()
    header = make_header(digest(boxes), "2/2")
    write_journal("2/2", Header(**{**vars(header), "polygons": True}), lines_of(boxes, "2/2"))
    with pytest.raises(InvalidRequest, match="were made differently: polygons is False and True"):
        merge_shards(options(boxes))
    whole = write_journal(None, make_header(digest(boxes)), lines_of(boxes, "1/1"))
    with pytest.raises(InvalidRequest, match="is a whole job rather than a shard"):
        merge_shards(options(boxes, whole))


def test_other_boxes_running_shards_and_other_outputs_are_refused(boxes: Path, write_journal: WriteJournal) -> None:
    paths = write_shards(write_journal, boxes, 2)
    with writing(paths[0]), pytest.raises(InvalidRequest, match="is in use: the job runs already"):
        merge_shards(options(boxes))
    merged = boxes.with_name("masks.json")
    merged.write_text("corrected by people")
    with pytest.raises(InvalidRequest, match="is not what this job wrote"):
        merge_shards(options(boxes))
    assert merged.read_text() == "corrected by people"
    merged.unlink()
    boxes.write_text(boxes.read_text() + " ")
    with pytest.raises(InvalidRequest, match="is not the file that the shards were made with"):
        merge_shards(options(boxes))
