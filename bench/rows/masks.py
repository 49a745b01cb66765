"""Row: from logits to run lengths."""

import contextlib
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import torch
from maskwire_core.masks.rle import rle
from pycocotools import mask as coco

from bench.harness import Row

WIDTH, HEIGHT = 4000, 3000


def same(ours: Any, other: Any) -> str:
    assert ours["counts"] == other["counts"]
    return "identical"


@contextlib.contextmanager
def rows() -> Iterator[Iterator[Row]]:
    coarse = np.random.default_rng(4).standard_normal((6, 6)).astype(np.float32)
    logits = np.asarray(cv2.resize(coarse * 8, (256, 256), interpolation=cv2.INTER_CUBIC), np.float32)

    def stock() -> Any:
        full = torch.nn.functional.interpolate(torch.from_numpy(logits)[None, None], (HEIGHT, WIDTH), mode="bilinear")
        return coco.encode(np.asfortranarray((full[0, 0] > 0).numpy().view(np.uint8)))

    against = "torch upsample, threshold, pycocotools"
    yield iter([Row("12 MP logits to COCO RLE", against, 0.06, lambda: rle(logits, WIDTH, HEIGHT), stock, same)])
