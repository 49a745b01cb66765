"""The data set with the masks: whatever order they came in, it is the same; other files are not replaced."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from maskwire import InvalidRequest
from maskwire.prelabelling import output

from .conftest import NAMES, done_line, make_dataset

LINES = [done_line(image, name, (image, image + 11)) for image, name in enumerate(NAMES)]


@settings(max_examples=30)
@given(st.permutations(LINES))
def test_the_order_of_lines_does_not_matter(lines: list[dict[str, object]]) -> None:
    assert output.assemble(make_dataset(), lines) == output.assemble(make_dataset(), LINES)


def test_all_else_stays_as_it_is() -> None:
    dataset = make_dataset()
    dataset["annotations"][0]["score"] = 0.5  # the detector's
    made = json.loads(output.assemble(dataset, LINES[:3]))
    plain = make_dataset()
    for name in ("info", "images", "categories"):
        assert made[name] == plain[name]
    for position, (annotation, before) in enumerate(zip(made["annotations"], plain["annotations"], strict=True)):
        if position not in (0, 1, 2, 11, 12, 13):
            assert annotation == before
            continue
        assert {name: annotation[name] for name in before} == before
        assert list(annotation)[: len(before)] == list(before)
        assert annotation["segmentation"]["counts"] == f"c{position}"
        assert (annotation["area"], annotation["score"]) == (position, position / 7)
    assert made["annotations"][0]["box_score"] == 0.5
    assert "box_score" not in made["annotations"][1]


def test_masks_that_replace_masks_keep_the_detectors_score() -> None:
    dataset = make_dataset()
    dataset["annotations"][0] |= {"score": 0.9, "box_score": 0.5}
    made = json.loads(output.assemble(dataset, LINES))["annotations"][0]
    assert (made["score"], made["box_score"]) == (0, 0.5)


def test_outputs_are_written_at_once_and_only_if_they_differ(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "masks.json"
    assert output.write(path, b"one")
    before = path.stat()
    assert not output.write(path, b"one")
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert before.st_mode & 0o777 == 0o666 & ~_umask()
    assert output.write(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["masks.json"]
    with pytest.raises(InvalidRequest, match="cannot write"):
        output.write(path / "below", b"three")


def test_files_of_others_are_not_replaced(tmp_path: Path, boxes: Path) -> None:
    path = tmp_path / "masks.json"
    output.check_free(path, boxes, [])
    path.write_bytes(b"masks")
    output.check_free(path, boxes, [output.digest_of(b"masks")])
    for wrong, message in (
        (path, "is not what this job wrote"),
        (boxes, "is the file with the boxes"),
        (tmp_path, "is a folder"),
    ):
        with pytest.raises(InvalidRequest, match=message) as raised:
            output.check_free(wrong, boxes, [])
        assert raised.value.field == "--out"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
