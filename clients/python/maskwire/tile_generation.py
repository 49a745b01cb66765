"""Everything in a large picture, tile by tile."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from maskwire.automatic_masks import AutomaticMaskArguments, FoundMask, Update
from maskwire.connection import Connection, Wanted
from maskwire.errors import InvalidRequest
from maskwire.tile_journal import TileJournal
from maskwire.tiles import Tile, clicks_in, tiles_of
from maskwire.v1 import decoder_pb2 as pb

_POINTS_PER_SIDE = 32
_SAME = 0.7  # IoU of boxes above which masks of two tiles are of one object, as sam2 has it for crops

Generate = Callable[[Wanted, AutomaticMaskArguments], AsyncIterator[Update]]
"""Yields the updates of an image or a region."""


async def generate_over_tiles(
    connection: Connection,
    image: Wanted,
    arguments: AutomaticMaskArguments,
    generate: Generate,
    journal: TileJournal,
) -> AsyncIterator[Update]:
    """Yields the masks of a picture after each tile.

    Each tile is clicked in its core alone, the smallest tiles first, and the whole picture last. What a tile cuts is
    left out there: it lies whole in a neighbour, in a larger tile, or in the picture. Of masks of one object, whose
    boxes have an IoU above `crop_nms_thresh`, the first one stays.

    Args:
        connection: Embeds the tiles, the next one while one is clicked.
        image: The picture, with what is stored of it.
        arguments: sam2's parameters.
        generate: Clicks on a tile.
        journal: What is done; each tile is entered when it is.

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
    tiles = [*tiles_of(*whole[2:]), Tile(whole, whole)]
    grids = [clicks_in(tile, side) for tile in tiles]
    merged = _Merged(arguments.get("crop_nms_thresh"))
    done, total, removed = 0, sum(map(len, grids)), Counter[str]()
    ahead: asyncio.Task[Wanted] | None = None
    todo = [index for index, tile in enumerate(tiles) if tile.place not in journal.done and len(grids[index])]
    try:
        for index, (tile, grid) in enumerate(zip(tiles, grids, strict=True)):
            if tile.place in journal.done:
                found, counts = journal.done[tile.place]
            elif not len(grid):
                continue
            else:
                part = image if tile.place == whole else await (ahead or connection.of_region(image, tile.place))
                todo.remove(index)
                ahead = None
                if todo and tiles[todo[0]].place != whole:
                    ahead = asyncio.ensure_future(connection.of_region(image, tiles[todo[0]].place))
                async for update in generate(part, {**arguments, "points_per_side": None, "point_grids": [grid]}):
                    found, counts = update.masks, dict(update.removed)
                await asyncio.to_thread(journal.add, tile.place, found, counts)
            done += len(grid)
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
                explanation=_explained(masks, removed, len(tiles), total) if done == total else "",
            )
    finally:
        if ahead is not None:
            ahead.cancel()


class _Merged:
    """Masks of tiles, each object once."""

    def __init__(self, same: float | None) -> None:
        self.masks: list[FoundMask] = []
        self._same = _SAME if same is None else same
        self._boxes = np.zeros((0, 4))

    def add(self, found: Sequence[FoundMask]) -> list[FoundMask]:
        """Adds the masks of a tile, and returns those of objects that were not there yet."""
        new = []
        for mask in found:
            box = np.array(mask.box, np.float64)
            if not (_ious(box, self._boxes) > self._same).any():
                self._boxes = np.concatenate([self._boxes, box[None]])
                new.append(mask)
        self.masks += new
        return new


def _ious(box: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """IoU of a box with each of others, Nx4."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    both = np.prod(np.maximum(sides, 0), axis=1)
    return np.asarray(both / (np.prod(box[2:] - box[:2]) + np.prod(others[:, 2:] - others[:, :2], axis=1) - both))


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
