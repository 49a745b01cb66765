"""Everything in a large picture, tile by tile."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from maskwire.automatic_masks import AutomaticMaskArguments, FoundMask, Update
from maskwire.connection import Connection, Wanted
from maskwire.errors import InvalidRequest
from maskwire.tile_contrast import is_busy
from maskwire.tile_journal import TileJournal
from maskwire.tiles import Tile, clicks_in, tiles_of
from maskwire.v1 import decoder_pb2 as pb

_POINTS_PER_SIDE = 32
_AHEAD = 2  # tiles that are read and embedded while one is clicked
_TTL_S = 60  # of the embeddings of tiles, which nobody needs when they are clicked
_SAME = 0.7  # IoU of boxes above which masks of two tiles are of one object, as sam2 has it for crops

Generate = Callable[[Wanted, AutomaticMaskArguments], AsyncIterator[Update]]
"""Yields the updates of an image or a region."""


class _Prepared(NamedTuple):
    """A tile that is next."""

    tile: Tile
    covers: int  # clicks of the grid in its core
    grid: NDArray[np.float64]  # those that are made, Nx2, as fractions of its sides
    part: Wanted | None  # it, embedded; None where nothing is clicked, or it is done


async def generate_over_tiles(
    connection: Connection,
    image: Wanted,
    arguments: AutomaticMaskArguments,
    tile_px: int,
    generate: Generate,
    journal: TileJournal,
) -> AsyncIterator[Update]:
    """Yields the masks of a picture after each tile.

    Each tile is clicked in its core alone, and only where something is to be seen; the smallest tiles first, and the
    whole picture last. What a tile cuts is left out there: it lies whole in a neighbour, in a larger tile, or in the
    picture. Of masks of one object, whose boxes have an IoU above `crop_nms_thresh`, the first one stays.

    Args:
        connection: Embeds the tiles, the next ones while one is clicked.
        image: The picture, with what is stored of it.
        arguments: sam2's parameters.
        tile_px: Side of the smallest tiles in pixels.
        generate: Clicks on a tile.
        journal: What is done; each tile is entered when it is, unless nothing is to be seen there.

    Raises:
        InvalidRequest: BAD_PARAMETER: the parameters do not go with tiles.
    """
    for name, is_given in (
        ("crop_n_layers", arguments.get("crop_n_layers")),
        ("point_grids", arguments.get("point_grids") is not None),
    ):
        if is_given:
            raise InvalidRequest(f"{name} does not go with tiles; leave it out", "BAD_PARAMETER", name)
    assert image.stored is not None
    side = int(arguments.get("points_per_side") or _POINTS_PER_SIDE)
    whole = (0, 0, image.stored.width, image.stored.height)
    tiles = [*tiles_of(*whole[2:], tile_px), Tile(whole, whole)]
    total = sum(len(clicks_in(tile, side)) for tile in tiles)
    merged, removed = _Merged(arguments.get("crop_nms_thresh")), Counter[str]()
    done = clicks = 0
    async with contextlib.aclosing(_prepare(connection, image, tiles, side, journal)) as prepared:
        async for tile, covers, grid, part in prepared:
            found, counts, made = journal.done.get(tile.place, ([], {}, 0))
            if part is not None:
                async for update in generate(part, {**arguments, "points_per_side": None, "point_grids": [grid]}):
                    found, counts, made = update.masks, dict(update.removed), len(grid)
                await asyncio.to_thread(journal.add, tile.place, found, counts, made)
            done, clicks = done + covers, clicks + made
            new = merged.add(found)
            removed.update(counts)
            removed["duplicates"] += len(found) - len(new)
            masks = list(merged.masks)
            yield Update(
                new=new,
                masks=masks,
                done=done,
                total=total,
                is_last=done == total,
                image=_described(image),
                removed=dict(removed) if done == total else {},
                explanation=_explained(masks, removed, len(tiles), clicks) if done == total else "",
            )


async def _prepare(
    connection: Connection, image: Wanted, tiles: Sequence[Tile], side: int, journal: TileJournal
) -> AsyncGenerator[_Prepared]:
    """Yields each tile that has clicks, in order. The next ones are read and embedded meanwhile."""
    ready: asyncio.Queue[_Prepared | None] = asyncio.Queue(_AHEAD)

    async def prepare(tile: Tile) -> _Prepared:
        grid = clicks_in(tile, side)
        covers, part = len(grid), None
        if tile.place in journal.done:
            return _Prepared(tile, covers, grid, None)
        if tile is tiles[-1]:  # the picture, which is clicked as without tiles
            return _Prepared(tile, covers, grid, image)
        window = await connection.window_of(image, tile.place)
        grid = grid[await asyncio.to_thread(is_busy, window, side, grid)]
        if len(grid):
            part = await connection.of_region(image, tile.place, window=window, ttl_s=_TTL_S)
        return _Prepared(tile, covers, grid, part)

    async def work() -> None:
        try:
            for tile in tiles:
                if len(clicks_in(tile, side)):
                    await ready.put(await prepare(tile))
        except Exception:
            await ready.put(None)
            raise
        await ready.put(None)

    task = asyncio.create_task(work())
    try:
        while (prepared := await ready.get()) is not None:
            yield prepared
        await task  # raises what has ended it
    finally:
        task.cancel()


class _Merged:
    """Masks of tiles, each object once."""

    def __init__(self, same: float | None) -> None:
        self.masks: list[FoundMask] = []
        self._same = _SAME if same is None else same
        self._sizes = np.zeros((0, 5))  # x, y, width and height of each mask's box, and its area; then rows for more

    def add(self, found: Sequence[FoundMask]) -> list[FoundMask]:
        """Adds the masks of a tile, and returns those of objects that were not there yet."""
        new = []
        for mask in found:
            x0, y0, x1, y1 = mask.box
            size = np.array([x0, y0, x1 - x0, y1 - y0, mask.area], np.float64)
            if self._is_known(mask, size):
                continue
            if len(self._sizes) == len(self.masks):
                self._sizes = np.concatenate([self._sizes, np.zeros((len(self.masks) + 64, 5))])
            self._sizes[len(self.masks)] = size
            self.masks.append(mask)
            new.append(mask)
        return new

    def _is_known(self, mask: FoundMask, size: NDArray[np.float64]) -> bool:
        if not self.masks:
            return False
        known = self._sizes[: len(self.masks)]
        boxes = _ious(size[None, :4], known[:, :4])
        if boxes.max() > self._same:
            return True
        # Boxes may differ by a speck far away. Masks of which one has far more pixels are not compared.
        areas = np.minimum(known[:, 4], size[4]) > self._same * np.maximum(known[:, 4], size[4])
        near = np.flatnonzero((boxes > 0) & areas)
        return bool(len(near)) and _ious([_runs(mask)], [_runs(self.masks[index]) for index in near]).max() > self._same


def _ious(one: Any, others: Any) -> NDArray[np.float64]:
    """IoU of a box or mask with each of others, as pycocotools takes them."""
    others = np.ascontiguousarray(others) if isinstance(others, np.ndarray) else others
    ious: NDArray[np.float64] = np.asarray(coco.iou(one, others, [False] * len(others)))[0]
    return ious


def _runs(mask: FoundMask) -> dict[str, Any]:
    return {**mask.rle, "counts": mask.rle["counts"].encode()}


def _described(image: Wanted) -> pb.SegmentedImage:
    assert image.stored is not None
    return pb.SegmentedImage(
        image_id=image.image_id,
        height_px=image.stored.height,
        width_px=image.stored.width,
        model=image.stored.model,
        content_key=image.stored.content_key,
    )


def _explained(masks: Sequence[FoundMask], removed: Counter[str], tiles: int, clicks: int) -> str:
    reasons = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in sorted(removed.items()) if count)
    return f"{clicks} clicks in {tiles} tiles gave {len(masks)} masks; removed were {reasons or 'none'}"
