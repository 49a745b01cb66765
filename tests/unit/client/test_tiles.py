"""Tiles of large pictures, and what is kept of those that are done."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from maskwire.automatic_masks import FoundMask, Update
from maskwire.errors import InvalidRequest
from maskwire.tile_contrast import is_busy
from maskwire.tile_generation import generate_over_tiles
from maskwire.tile_journal import TileJournal
from maskwire.tiles import Tile, clicks_in, tiles_of
from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import types_pb2
from PIL import Image
from pycocotools import mask as coco

SIZE = (2100, 1500)
JOB = {"content_key": "c", "parameters": {}}
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8))


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_whatever_is_half_as_long_as_a_tile_lies_in_one(width: int, height: int) -> None:
    tiles = list(tiles_of(width, height))
    sides = sorted({max(x1 - x0, y1 - y0) for (x0, y0, x1, y1), _ in tiles})
    assert all(side <= 0.7 * max(width, height) for side in sides)
    for side in sides:
        of_size = [tile for tile in tiles if max(tile.place[2] - tile.place[0], tile.place[3] - tile.place[1]) == side]
        area = sum((x1 - x0) * (y1 - y0) for _, (x0, y0, x1, y1) in of_size)
        assert area == width * height  # the cores are the picture
        for place, core in of_size:
            for low, high, near, far, end in zip(place, place[2:], core, core[2:], (width, height), strict=False):
                assert 0 <= low <= near < far <= high <= end
                assert low == 0 or near - low >= side // 4
                assert high == end or high - far >= side // 4


def test_every_place_is_clicked_once_at_each_scale() -> None:
    clicks = np.concatenate(
        [
            clicks_in(tile, 32) * (tile.place[2] - tile.place[0], tile.place[3] - tile.place[1]) + tile.place[:2]
            for tile in tiles_of(*SIZE)
        ]
    )
    assert len(np.unique(clicks, axis=0)) == len(clicks)
    assert len(clicks) == pytest.approx(SIZE[0] * SIZE[1] / 32**2, rel=0.1)
    assert (clicks.max(0) > np.array(SIZE) - 32).all()


def found(x: float, y: float, side: float, iou: float = 0.9, stability: float = 1) -> FoundMask:
    box = types_pb2.Box(x_min_px=x, y_min_px=y, x_max_px=x + side, y_max_px=y + side)
    rle = types_pb2.Rle(size=SIZE[::-1], counts="x")
    return FoundMask(pb.GeneratedMask(rle=rle, box=box, predicted_iou=iou, stability_score=stability))


def run(
    journal: TileJournal, ends_after: int = 1000, flat: Any = (), more: Any = (), **arguments: Any
) -> tuple[list[Update], list[Any]]:
    """Runs everything over the tiles of a picture, in each of which something in its middle, and one object, is found.
    Returns the updates, and the tiles that were clicked."""
    clicked = []

    async def window_of(image: Any, place: Any) -> Any:
        return Image.new("RGB", (64, 64)) if place in flat else NOISE

    async def of_region(image: Any, place: Any, **_: Any) -> Any:
        return SimpleNamespace(place=place)

    async def generate(part: Any, of_tile: Any) -> AsyncIterator[Any]:
        place = getattr(part, "place", (0, 0, *SIZE))
        clicked.append(place)
        (grid,) = of_tile["point_grids"]
        assert len(grid)
        masks = [found((place[0] + place[2]) / 2, place[1] + 400, 50), found(1000, 700, 90, iou=-len(clicked))]
        masks += more[len(clicked) - 1 : len(clicked)]
        yield SimpleNamespace(masks=masks, removed={"low_stability": 2})

    stored = SimpleNamespace(width=SIZE[0], height=SIZE[1], model="demo", content_key="c")
    image: Any = SimpleNamespace(stored=stored, image_id="photo")
    connection: Any = SimpleNamespace(of_region=of_region, window_of=window_of)

    async def collect() -> list[Update]:
        updates = []
        async for update in generate_over_tiles(connection, image, arguments, 1024, generate, journal):  # type: ignore[arg-type]
            updates.append(update)
            if len(updates) == ends_after:
                break
        return updates

    return asyncio.run(collect()), clicked


def test_masks_of_tiles_are_joined() -> None:
    updates, clicked = run(TileJournal(None, JOB), points_per_side=8)
    tiles = [tile.place for tile in tiles_of(*SIZE)]
    assert clicked == [*tiles, (0, 0, *SIZE)]
    last = updates[-1]
    assert [update.is_last for update in updates] == [False] * (len(updates) - 1) + [True]
    assert last.done == last.total
    assert [mask.predicted_iou for mask in last.masks if mask.bbox[0] == 1000] == [-1]  # once, as it was seen best
    assert len(last.masks) == len({tuple(mask.bbox) for mask in last.masks})
    assert last.removed["duplicates"] == 2 * len(clicked) - len(last.masks)
    assert last.removed["low_stability"] == 2 * len(clicked)
    assert sum(len(update.new) for update in updates) == len(last.masks)
    for of_crops in ({"crop_n_layers": 1}, {"crop_overlap_ratio": 0.3}, {"point_grids": [np.zeros((1, 2))]}):
        with pytest.raises(InvalidRequest, match=next(iter(of_crops))):
            run(TileJournal(None, JOB), **of_crops)


def test_of_masks_of_an_object_the_best_one_stays() -> None:
    def with_iou(*scores: tuple[float, float]) -> list[float]:
        """Predicted IoUs of the masks at one place that are left, of those that tiles gave one after another."""
        updates, _ = run(TileJournal(None, JOB), more=[found(300, 300, 60, *each) for each in scores])
        given = [sum(mask.bbox[0] == 300 for mask in update.new) for update in updates]
        assert all(sum(mask.bbox[0] == 300 for mask in update.masks) == 1 for update in updates)
        assert given[: len(scores)] == [
            int(a * b > max([0, *(c * d for c, d in scores[:i])])) for i, (a, b) in enumerate(scores)
        ]
        assert updates[-1].removed["duplicates"] == 2 * len(updates) + len(scores) - len(updates[-1].masks)
        return [mask.predicted_iou for mask in updates[-1].masks if mask.bbox[0] == 300]

    assert with_iou((0.5, 1), (0.75, 1), (0.625, 1)) == [0.75]
    assert with_iou((0.75, 0.5), (0.5, 1)) == [0.5]


def test_flat_tiles_are_not_clicked(tmp_path: Path) -> None:
    tiles = [tile.place for tile in tiles_of(*SIZE)]
    updates, clicked = run(TileJournal(tmp_path / "journal", JOB), flat=tiles[1:3])
    assert clicked == [tiles[0], *tiles[3:], (0, 0, *SIZE)]
    assert (updates[-1].is_last, updates[-1].done) == (True, updates[-1].total)
    assert len(updates) == len(tiles) + 1
    assert list(TileJournal(tmp_path / "journal", JOB).done) == clicked


@pytest.mark.parametrize(("level", "column", "row"), [(0, 0, 0), (140, 3, 7), (116, 7, 2), (128, 4, 4)])
def test_clicks_are_made_where_something_is_to_be_seen(level: int, column: int, row: int) -> None:
    noise = np.random.default_rng(0).normal(0, 3, (256, 256, 1))
    picture = np.clip(128 + noise, 0, 255).astype(np.uint8).repeat(3, axis=2)
    picture[32 * row + 4 : 32 * row + 28, 32 * column + 4 : 32 * column + 28, 1] = level
    clicks = clicks_in(Tile((0, 0, 256, 256), (0, 0, 256, 256)), 8)
    busy = is_busy(Image.fromarray(picture), 8, clicks).reshape(8, 8)
    if abs(level - 128) > 11:
        assert busy[row, column]
    busy[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2] = False
    assert not busy.any()


def test_what_is_enclosed_in_a_tile_is_clicked_and_what_its_edge_cuts_is_not() -> None:
    picture = np.full((256, 256, 3), 128, np.uint8)
    picture[32:192, 40:200] = 60
    picture[220:, 16:100] = 60
    tile = Tile((0, 0, 256, 256), (0, 0, 256, 256))
    busy = is_busy(Image.fromarray(picture), 16, clicks_in(tile, 16)).reshape(16, 16)
    assert busy[2:12, 3:12].all()
    assert not busy[15, 3:5].any()
    assert not busy[0].any()
    assert not busy[:, 14:].any()


def test_masks_of_the_same_pixels_are_one_though_a_speck_is_far_away() -> None:
    def of(*squares: tuple[int, int, int]) -> FoundMask:
        pixels = np.zeros(SIZE[::-1], np.uint8, order="F")
        for x, y, side in squares:
            pixels[y : y + side, x : x + side] = 1
        runs: Any = coco.encode(pixels)
        left, top, width, height = (float(each) for each in coco.toBbox(runs))
        box = types_pb2.Box(x_min_px=left, y_min_px=top, x_max_px=left + width - 1, y_max_px=top + height - 1)
        rle = types_pb2.Rle(size=SIZE[::-1], counts=runs["counts"].decode())
        area = int(coco.area(runs))
        return FoundMask(pb.GeneratedMask(rle=rle, box=box, area_px=area, predicted_iou=0.5, stability_score=1))

    square, speckled, other = of((100, 100, 60)), of((100, 100, 60), (190, 190, 2)), of((100, 100, 60), (300, 300, 50))
    updates, _ = run(TileJournal(None, JOB), more=[square, speckled, other])
    assert [mask for mask in updates[-1].masks if mask.predicted_iou == 0.5] == [square, other]


def test_a_job_that_was_killed_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    whole, clicked = run(TileJournal(None, JOB))
    _, first = run(TileJournal(path, JOB), ends_after=3)
    with path.open("ab") as file:
        file.write(b'{"tile": [0, 0')  # cut off
    updates, rest = run(TileJournal(path, JOB))
    assert first + rest == clicked
    assert [mask.bbox for mask in updates[-1].masks] == [mask.bbox for mask in whole[-1].masks]
    assert updates[-1].removed == whole[-1].removed
    assert run(TileJournal(path, JOB))[1] == []  # nothing is left to do
    with pytest.raises(InvalidRequest, match="another picture"):
        TileJournal(path, {**JOB, "content_key": "d"})
    (tmp_path / "other").write_text("hello\n")
    for wrong in (tmp_path / "other", tmp_path, tmp_path / "no" / "folder"):
        with pytest.raises(InvalidRequest) as caught:
            TileJournal(wrong, JOB)
        assert (caught.value.reason, caught.value.field) == ("BAD_JOURNAL", "journal")
