"""Shards divide a job: every image once, evenly, and the same on every machine."""

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from maskwire import InvalidRequest
from maskwire.prelabelling.boxes_file import ImageBoxes
from maskwire.prelabelling.shards import INDEX_VARIABLE, Shard, find_shards, journal_path


@given(st.lists(st.text("abc/", min_size=1, max_size=4), max_size=40), st.integers(1, 9), st.randoms())
def test_shards_have_every_image_once(names: list[str], count: int, random: Random) -> None:
    images = [ImageBoxes(number, name, None, ()) for number, name in enumerate(names)]
    shards = [Shard(number, count).of(images) for number in range(1, count + 1)]
    assert sorted(image.image for shard in shards for image in shard) == list(range(len(names)))
    files = [{image.file_name for image in shard} for shard in shards]
    assert sum(map(len, files)) == len(set(names))  # a file is in one shard
    assert max(map(len, files)) - min(map(len, files)) <= 1
    shuffled = images.copy()
    random.shuffle(shuffled)
    assert [{image.file_name for image in Shard(n, count).of(shuffled)} for n in range(1, count + 1)] == files


def test_shards_are_named_or_told_by_kubernetes() -> None:
    assert Shard.parse("3/8", {}) == Shard(3, 8)
    assert Shard.parse("/8", {INDEX_VARIABLE: "0"}) == Shard(1, 8)
    assert Shard.parse("/8", {INDEX_VARIABLE: "7"}) == Shard(8, 8)
    assert str(Shard(3, 8)) == "3/8"


@pytest.mark.parametrize("text", ["0/8", "9/8", "0/0", "3", "3/", "/", "-1/8", "3/8/2", "3/8 ", "a/b", "", "1/9999999"])
def test_other_shards_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        Shard.parse(text, {INDEX_VARIABLE: "2"})
    assert raised.value.field == "--shard"


@pytest.mark.parametrize("index", [None, "", "8", "x", "-1"])
def test_the_index_must_be_told(index: str | None) -> None:
    with pytest.raises(InvalidRequest):
        Shard.parse("/8", {} if index is None else {INDEX_VARIABLE: index})


def test_journals_lie_beside_the_output(tmp_path: Path) -> None:
    output = tmp_path / "masks.json"
    assert journal_path(output, None) == tmp_path / "masks.json.journal"
    paths = [journal_path(output, Shard(number, 12)) for number in (1, 12)]
    assert paths[1] == tmp_path / "masks.json.shard-12-of-12"
    for path in (*paths, tmp_path / "masks.json.journal", tmp_path / "other.json.shard-1-of-2"):
        path.touch()
    assert find_shards(output) == paths
    assert find_shards(tmp_path / "none" / "masks.json") == []
