"""Rows: from an image file to the input of a model, decoded by a process of its own or in this one."""

import contextlib
import io
from collections.abc import Iterator
from functools import partial

import torch
from maskwire.pictures import Picture
from maskwire.pictures.cost import estimate
from maskwire_encoder.image_input.preprocessing import prepare
from maskwire_encoder.image_input.reader_pool import Handle, ReaderPool
from maskwire_encoder.image_input.reader_process import Job
from maskwire_encoder.image_input.reading import read_image
from PIL import Image
from torch import Tensor

from bench.harness import Row
from bench.rows.jpeg import SIZE, photograph

WIDTH, HEIGHT = 4000, 3000


def agree(ours: Tensor, other: Tensor) -> str:
    assert torch.equal(ours, other)
    return "equal"


def in_process(data: bytes) -> Tensor:
    return prepare(read_image(data, WIDTH * HEIGHT).pixels, SIZE)


def use(picture: Picture, warnings: list[str]) -> Tensor:
    return prepare(picture.pixels, SIZE)


@contextlib.contextmanager
def rows() -> Iterator[Iterator[Row]]:
    pool = ReaderPool(1, 3 * WIDTH * HEIGHT)
    jpeg = photograph(WIDTH, HEIGHT)
    png = io.BytesIO()
    Image.open(io.BytesIO(jpeg)).save(png, "PNG", compress_level=1)

    def in_pool(data: bytes) -> Tensor:
        return pool.read(Job(data, "auto", WIDTH * HEIGHT, estimate(data)), Handle(), use)

    def row(kind: str, data: bytes, at_most: float, rounds: int) -> Row:
        name = f"12 MP {kind} to tensor, decoded by a process of its own ({len(data) / 1e6:.1f} MB)"
        ours, other = partial(in_pool, data), partial(in_process, data)
        return Row(name, "the same in this process", at_most, ours, other, agree, rounds)

    try:
        yield iter([row("JPEG", jpeg, 1.03, 40), row("PNG", png.getvalue(), 1.05, 15)])
    finally:
        pool.close()
