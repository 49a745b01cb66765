"""A job that goes on: no server is asked for what is done, and a journal of another job is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from maskwire import InvalidRequest
from maskwire.cli.prelabel import prelabel_images
from maskwire.cli.prelabel_options import PatientServerOptions, PrelabelOptions
from maskwire.prelabelling import boxes_file, output
from maskwire.prelabelling.journal import Header, reading, writing
from maskwire.prelabelling.shards import Shard

from .conftest import done_line, failed_line, make_header

WriteJournal = Callable[[str | None, Header, list[dict[str, Any]]], Path]


def options(boxes: Path, /, **changes: Any) -> PrelabelOptions:
    (boxes.parent / "images").mkdir(exist_ok=True)
    given = {"folder": boxes.parent / "images", "boxes": boxes, "out": boxes.with_name("masks.json")}
    return PrelabelOptions(**{**given, "servers": PatientServerOptions(encoder="no.such.host:1"), **changes})


def all_lines(boxes: Path) -> list[dict[str, Any]]:
    images = boxes_file.read(boxes, replace=False).images
    return [done_line(image.image, image.file_name, tuple(box.annotation for box in image.boxes)) for image in images]


def header(boxes: Path, shard: str = "") -> Header:
    return make_header(boxes_file.read(boxes, replace=False).sha256, shard)


def test_a_job_killed_before_it_wrote_its_output_writes_it(
    boxes: Path, write_journal: WriteJournal, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = write_journal(None, header(boxes), all_lines(boxes))
    prelabel_images(options(boxes))
    masks = boxes.with_name("masks.json")
    assert masks.read_bytes() == output.assemble(json.loads(boxes.read_text()), all_lines(boxes))
    said = capsys.readouterr()
    assert said.out == f"{masks}: 22 masks of 11 images (11 done before)\n"
    assert "demo model" in said.err
    before = journal.read_bytes(), masks.stat().st_mtime_ns
    prelabel_images(options(boxes))  # once more: nothing changes
    assert (journal.read_bytes(), masks.stat().st_mtime_ns) == before


def test_a_shard_that_is_done_changes_nothing(boxes: Path, write_journal: WriteJournal) -> None:
    mine = {image.image for image in Shard(2, 3).of(boxes_file.read(boxes, replace=False).images)}
    lines = [line for line in all_lines(boxes) if line["image"] in mine]
    journal = write_journal("2/3", header(boxes, "2/3"), lines)
    before = journal.read_bytes()
    prelabel_images(options(boxes, shard="2/3"))
    assert journal.read_bytes() == before
    assert not boxes.with_name("masks.json").exists()


def test_corrections_of_people_are_not_written_over(boxes: Path, write_journal: WriteJournal) -> None:
    write_journal(None, header(boxes), all_lines(boxes))
    prelabel_images(options(boxes))
    masks = boxes.with_name("masks.json")
    masks.write_text(masks.read_text().replace("cup", "mug"))
    with pytest.raises(InvalidRequest, match="is not what this job wrote"):
        prelabel_images(options(boxes))
    assert "mug" in masks.read_text()


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"polygons": True}, "--polygons", "was begun with --polygons False, which is True now"),
        ({"tight_boxes": True}, "--tight-boxes", "was begun with --tight-boxes False"),
        ({"replace": True}, "--replace", "was begun with --replace False"),
        ({"stretch": "range"}, "--stretch", "was begun with --stretch 'auto', which is 'range' now"),
        ({"model": "tiny"}, "--model", "was begun with --model 'demo', which is 'tiny' now"),
        ({"model": "hiera_tiny"}, "--model", "which is 'sam2.1_hiera_tiny' now"),
        ({"folder": Path("none")}, "folder", "no such folder: none"),
        ({"boxes": Path("none.json")}, "--boxes", "no such file: none.json"),
        ({"shard": "3"}, "--shard", "'3' is not I/N"),
    ],
)
def test_other_options_are_refused(
    boxes: Path, write_journal: WriteJournal, changes: dict[str, Any], field: str, message: str
) -> None:
    journal = write_journal(None, header(boxes), all_lines(boxes)[:5])
    before = journal.read_bytes()
    with pytest.raises(InvalidRequest) as raised:
        prelabel_images(options(boxes, **changes))
    assert raised.value.field == field
    assert message in raised.value.message
    assert journal.read_bytes() == before


def test_other_boxes_are_refused(boxes: Path, write_journal: WriteJournal) -> None:
    write_journal(None, header(boxes), all_lines(boxes)[:5])
    boxes.write_text(boxes.read_text().replace("20.25", "20.5"))
    with pytest.raises(InvalidRequest, match="give the file as it was, or another --out") as raised:
        prelabel_images(options(boxes))
    assert raised.value.field == "--boxes"


def test_outputs_that_are_there_are_refused_before_anything_is_asked(boxes: Path) -> None:
    for out, message in (
        (boxes, "is the file with the boxes"),
        (boxes.parent, "is a folder"),
        (boxes.with_name("mine"), "mine exists"),
    ):
        boxes.with_name("mine").touch()
        with pytest.raises(InvalidRequest, match=message):
            prelabel_images(options(boxes, out=out))
    assert {path.name for path in boxes.parent.iterdir()} == {"boxes.json", "images", "mine"}


def test_a_second_process_is_refused(boxes: Path, write_journal: WriteJournal) -> None:
    journal = write_journal(None, header(boxes), all_lines(boxes))
    with writing(journal), pytest.raises(InvalidRequest, match="is in use"):
        prelabel_images(options(boxes))


def test_failures_of_before_are_tried_again_and_success_counts(boxes: Path, write_journal: WriteJournal) -> None:
    lines = all_lines(boxes)
    journal = write_journal(None, header(boxes), [failed_line(2, "a"), *lines[:2], lines[2], *lines[3:]])
    with reading(journal) as read:
        assert read.state.failed == {}
    prelabel_images(options(boxes))
    assert boxes.with_name("masks.json").exists()
