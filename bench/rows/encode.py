"""Rows: the image encoder on a CPU."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from maskwire_core.config import EncoderSettings
from maskwire_encoder.backends.accuracy_check import AccuracyCheck
from maskwire_encoder.backends.features import NAMES, ImageFeatures
from maskwire_encoder.backends.selection import TorchBackend, choose
from maskwire_encoder.image_input.preprocessing import prepare
from PIL import Image

from bench.harness import Row
from bench.subject import HEIGHT, THREADS, WIDTH, subject
from testing.paths import ROOT


@contextlib.contextmanager
def rows() -> Iterator[Iterator[Row]]:
    sam = subject().model
    image = Image.open(ROOT / "examples" / "coffee.jpg").convert("RGB").resize((WIDTH, HEIGHT))
    pixels = prepare(np.array(image), sam.image_size)
    features = ImageFeatures(sam).eval()
    stock = TorchBackend(features, sam.image_size)
    accuracy = AccuracyCheck(sam, features, torch.device("cpu"), count=1)

    def row(precision: str, at_most: float) -> Row:
        with tempfile.TemporaryDirectory() as cache:
            settings = EncoderSettings(device="cpu", precision=precision, threads=THREADS, cache=Path(cache))
            backend = choose(sam, settings, "bench")
        (found,) = backend.encode(tuple(accuracy.inputs))
        iou = accuracy.check([torch.from_numpy(found[name])[None] for name in NAMES]).iou
        return Row(
            f"encode on CPU ({type(backend).__name__}, {backend.precision})",
            "torch fp32",
            at_most,
            lambda: backend.encode((pixels,)),
            lambda: stock.encode((pixels,)),
            lambda ours, other: f"masks' mean IoU {iou:.4f}",
            7,
        )

    yield (row(*kind) for kind in (("auto", 0.35), ("fp32", 0.6)))
