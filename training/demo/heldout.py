"""Pictures that training never saw, with objects to find on them."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
from maskwire.suggest import no_such
from numpy.typing import NDArray

from training.demo.pack import Pack
from training.demo.scenes import WITHOUT_PROMINENT, Scenes

COMPOSED = "composed"
_LEAST = 0.004  # share of the picture that an object must take
_SIZE, _FIRST_SEED = 512, 1_000_000


@dataclass(frozen=True)
class Case:
    """A picture (HxWx3, RGB), masks of its objects (HxW, the largest first), and whether the first is prominent."""

    source: str
    rgb: NDArray[np.uint8]
    masks: list[NDArray[np.bool_]]
    prominent: bool


def cases(pack: Pack, composed: int, objects: int, sources: Collection[str] | None = None) -> Iterator[Case]:
    """All photographs of a held-out pack by source, and scenes composed of its parts.

    Args:
        pack: What is held out.
        composed: How many scenes to compose; scene n is always the same.
        objects: Objects of a picture that count at most, the largest.
        sources: Photographs of these sources only, in place of all.

    Raises:
        SystemExit: The pack has no photographs of one of the sources.
    """
    for source in sources or ():
        if source not in pack.photos:
            raise SystemExit(f"error: {no_such('source', source, pack.photos)}")
    for source, photos in pack.photos.items():
        if sources and source not in sources:
            continue
        for photo in photos:
            every = [photo.mask(index) for index in range(len(photo.masks))]
            masks = _largest(every, objects)
            if masks:
                yield Case(source, photo.pixels, masks, len(every) <= 12 and source not in WITHOUT_PROMINENT)
    scenes = Scenes(pack, _SIZE)
    for number in range(composed):
        image, visible = scenes.compose(np.random.default_rng(_FIRST_SEED + number), easy=False)
        masks = _largest(visible, objects)
        if masks:
            yield Case(COMPOSED, np.clip(image, 0, 255).astype(np.uint8), masks, True)


def _largest(masks: list[NDArray[np.bool_]], count: int) -> list[NDArray[np.bool_]]:
    fitting = [mask for mask in masks if np.count_nonzero(mask) > _LEAST * mask.size]
    return sorted(fitting, key=np.count_nonzero, reverse=True)[:count]
