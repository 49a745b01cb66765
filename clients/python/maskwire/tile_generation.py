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
from maskwire.connection import Connection
from maskwire.errors import InvalidRequest
from maskwire.tile_contrast import is_busy
from maskwire.tile_journal import TileJournal
from maskwire.tiles import Tile, clicks_in, tiles_of
from maskwire.v1 import decoder_pb2 as pb
from maskwire.wanted_image import Wanted

_POINTS_PER_SIDE = 32
_AHEAD = 2  # tiles that are read and embedded while one is clicked
_TTL_S = 60  # how long embeddings of tiles are stored, which nobody needs once the tiles are clicked
_OF_CROPS = ("crop_n_layers", "crop_overlap_ratio", "crop_n_points_downscale_factor", "point_grids")
_SAME = 0.7  # IoU of boxes above which masks of two tiles are of one object, as sam2 has it for crops

Generate = Callable[[Wanted, AutomaticMaskArguments], AsyncIterator[Update]]
"""Yields the updates of an image or a region."""


class _Prepared(NamedTuple):
    """A tile that is next."""

    tile: Tile
    covers: int  # number of the grid's clicks in its core
    grid: NDArray[np.float64]  # the clicks that are made, Nx2, as fractions of its sides
    part: Wanted | None  # the embedded tile; None where nothing is clicked, or the tile is done


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
    picture. Of masks of one object, whose boxes or pixels have an IoU above `crop_nms_thresh`, the one stays whose
    predicted IoU times stability is highest.

    Args:
        connection: Embeds the tiles, the next ones while one is clicked.
        image: The picture, with what is stored of it.
        arguments: sam2's parameters.
        tile_px: Side of the smallest tiles in pixels.
        generate: Clicks on a tile.
        journal: The tiles that are done. Each is entered when it is, unless there was nothing to click.

    Raises:
        InvalidRequest: BAD_PARAMETER: the parameters do not go with tiles.
    """
    for name in _OF_CROPS:
        value = arguments.get(name)
        if value is not None and (name, value) != ("crop_n_layers", 0):
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
            before = len(merged.masks)
            new = merged.add(found)
            removed.update(counts)
            removed["duplicates"] += before + len(found) - len(merged.masks)
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
    """Masks of tiles, each object once: the one whose predicted IoU times stability is highest. What a tile nearly cuts
    has a low predicted IoU; what is small in its tile has a blurred edge, so it is not stable."""

    def __init__(self, same: float | None) -> None:
        self.masks: list[FoundMask] = []
        self._same = _SAME if same is None else same
        self._sizes = np.zeros((0, 5))  # x, y, width and height of each mask's box, and its area
        self._scores = np.zeros(0)

    def add(self, found: Sequence[FoundMask]) -> list[FoundMask]:
        """Adds the masks of a tile, and returns those that stay for now."""
        new: dict[int, FoundMask] = {}
        for mask in found:
            x0, y0, x1, y1 = mask.box
            size = np.array([x0, y0, x1 - x0, y1 - y0, mask.area], np.float64)
            score, alike = mask.predicted_iou * mask.stability_score, self._alike(mask, size)
            if (self._scores[alike] >= score).any():
                continue
            for index in alike[::-1]:
                new.pop(id(self.masks.pop(index)), None)
            self._sizes = np.concatenate([np.delete(self._sizes, alike, 0), size[None]])
            self._scores = np.append(np.delete(self._scores, alike), score)
            self.masks.append(mask)
            new[id(mask)] = mask
        return list(new.values())

    def _alike(self, mask: FoundMask, size: NDArray[np.float64]) -> NDArray[np.intp]:
        """Returns the indices of masks of the same object."""
        if not self.masks:
            return np.zeros(0, np.intp)
        boxes = _ious(size[None, :4], self._sizes[:, :4])
        areas, same = self._sizes[:, 4], boxes > self._same
        # Boxes may differ by a speck far away. Masks of which one has far more pixels are not compared.
        comparable = np.minimum(areas, size[4]) > self._same * np.maximum(areas, size[4])
        near = np.flatnonzero((boxes > 0) & comparable & ~same)
        if len(near):
            same[near] = _ious([_runs(mask)], [_runs(self.masks[index]) for index in near]) > self._same
        return np.flatnonzero(same)


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
