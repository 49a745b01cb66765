"""Rows: clicks in a region of a picture of 12 megapixels, from the call of the client to the mask."""

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from maskwire import Result
from PIL import Image

from bench.harness import Row
from testing.paths import COFFEE
from testing.servers import up

WIDTH, HEIGHT, SIDE = 4000, 3000, 256
CLICK = (2000.0, 1500.0)


def agree(ours: Result, other: Result) -> str:
    assert ours.mask.shape == other.mask.shape == (HEIGHT, WIDTH)
    return f"masks of {ours.area} and {other.area} px"


@contextlib.contextmanager
def rows() -> Iterator[Iterator[Row]]:
    picture = np.array(Image.open(COFFEE).convert("RGB").resize((WIDTH, HEIGHT)))
    with up() as stack, stack.client() as client:
        image = client.embed(picture)
        new = itertools.count()

        def whole() -> Any:
            return client.segment(image, points=[CLICK])

        def warm() -> Any:
            return client.segment(image, points=[CLICK], region=(1872, 1372, 1872 + SIDE, 1372 + SIDE))

        def cold() -> Any:
            left = 1800 + next(new)
            return client.segment(image, points=[CLICK], region=(left, 1372, left + SIDE, 1372 + SIDE))

        yield iter(
            [
                Row("warm click in a region of a 12 MP picture", "a warm click in the whole", 1.2, warm, whole, agree),
                Row("click in a new region: the sharp mask", "the coarse one, of the whole", 20, cold, whole, agree),
            ]
        )
