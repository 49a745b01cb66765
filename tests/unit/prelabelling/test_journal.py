"""A journal survives being cut off at any byte, and is of one job."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from maskwire import InvalidRequest
from maskwire.prelabelling import journal
from maskwire.prelabelling.journal import reading, writing

from .conftest import done_line, failed_line, make_header

LINES = [done_line(3, "ü.jpg", (5, 6)), failed_line(1), {"output": "d1"}, done_line(1, "b", (7,)), done_line(2)]


def write(path: Path, lines: list[dict[str, Any]]) -> bytes:
    with writing(path) as begun:
        if begun.state.header is None:
            begun.begin(make_header("digest"))
        begun.add(lines)
    return path.read_bytes()


def test_a_journal_says_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "journal"
    write(path, LINES)
    with reading(path) as read:
        assert read.state.header == make_header("digest")
        assert read.state.masks == {3: 2, 1: 1, 2: 0}
        assert (read.state.failed, read.state.outputs, read.state.damaged) == ({}, {"d1"}, 0)
        assert list(read.done()) == [LINES[0], LINES[3], LINES[4]]
        assert list(read.done()) == [LINES[0], LINES[3], LINES[4]]


@pytest.fixture
def no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves what is written where the system has it: thousands of journals would wait for the disk."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def test_cut_off_at_any_byte_it_goes_on_and_has_every_image_once(tmp_path: Path, no_disk: None) -> None:
    path = tmp_path / "journal"
    whole = write(path, LINES)
    ends = [index + 1 for index, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with writing(path) as cut_off:
            complete = sum(end <= cut for end in ends)
            assert cut_off.state.damaged == 0
            if complete == 0:
                assert cut_off.state.header is None
                cut_off.begin(make_header("digest"))
                complete = 1
            left = [line for line in LINES[complete - 1 :] if line.get("image") not in cut_off.state.masks]
            cut_off.add(left)
        assert path.read_bytes() == whole


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=30), st.data())
def test_whatever_happened_an_image_is_done_once_or_failed(
    tmp_path_factory: pytest.TempPathFactory, happened: list[tuple[int, bool]], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("journals") / "journal"
    lines = [done_line(image, annotations=(image,)) if done else failed_line(image) for image, done in happened]
    content = write(path, lines)
    if data.draw(st.booleans()):
        damaged = bytearray(content)
        start = content.index(b"\n") + 1
        for place in data.draw(st.lists(st.integers(start, len(content)), max_size=4)):
            damaged[place : place + 1] = b"\xff"
        path.write_bytes(damaged)
    with reading(path) as read:
        done = [line["image"] for line in read.done()]
        assert len(done) == len(set(done))
        assert set(done) == set(read.state.masks)
        assert not set(done) & set(read.state.failed)


def test_damaged_lines_count_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    lines = write(path, LINES).splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\0" * 100 + b"\n" + lines[1] + b'[1]\n{"image": "3"}\n' + lines[5])
    with reading(path) as read:
        assert read.state.damaged == 3
        assert read.state.masks == {3: 2, 2: 0}


def test_the_same_failure_is_written_once(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    content = write(path, [failed_line(1)])
    assert write(path, [failed_line(1)]) == content
    assert write(path, [failed_line(1, "other")]) != content


def test_two_processes_are_refused_and_a_job_that_did_not_begin_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with writing(path):
        for opened in (writing, reading):
            with pytest.raises(InvalidRequest, match="is in use: the job runs already"), opened(path):
                pass
    assert not path.exists()
    write(path, LINES)
    with reading(path), reading(path), pytest.raises(InvalidRequest, match="is in use"), writing(path):
        pass


def test_other_files_are_not_taken_for_journals(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    for content in (b"notes\n", b"{}\n", b"[]\n", b'{"maskwire_prelabel": 1}\n'):
        path.write_bytes(content)
        with pytest.raises(InvalidRequest, match="does not begin as a journal"), writing(path):
            pass
        assert path.read_bytes() == content
    path.write_text(json.dumps({"maskwire_prelabel": journal.FORMAT + 1}) + "\n")
    with pytest.raises(InvalidRequest, match="another version"), writing(path):
        pass
    with pytest.raises(InvalidRequest, match="no such file"), reading(tmp_path / "none"):
        pass
    with pytest.raises(InvalidRequest, match="cannot write"), writing(path / "below"):
        pass


def test_lines_are_on_disk_before_the_job_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size))
    path = tmp_path / "journal"
    with writing(path) as begun:
        begun.begin(make_header("digest"))
        begun.add(LINES)
        begun.add([])
        assert synced[-1] == path.stat().st_size
        assert len(synced) == 3  # the header, its folder, the lines
