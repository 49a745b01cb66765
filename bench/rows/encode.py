"""The image encoder on a CPU."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from maskwire_core.config import EncoderSettings
from maskwire_encoder import canary
from maskwire_encoder.backends import TorchBackend, choose
from maskwire_encoder.preprocessing import prepare
from PIL import Image

from bench.harness import Row
from bench.subject import HEIGHT, ROOT, THREADS, WIDTH, subject


@contextlib.contextmanager
def rows() -> Iterator[Iterator[Row]]:
    sam, device = subject().model, torch.device("cpu")
    image = Image.open(ROOT / "examples" / "coffee.jpg").convert("RGB").resize((WIDTH, HEIGHT))
    pixels = prepare(np.array(image), sam.image_size)
    stock = TorchBackend(sam, device)

    def agree(ours: Any, other: Any) -> str:
        iou = canary.agreement(canary.masks(sam, other[0]), canary.masks(sam, ours[0]))
        assert iou >= canary.AGREEMENT, iou
        return f"mean IoU {iou:.4f}"

    def row(precision: str, at_most: float) -> Row:
        settings = EncoderSettings(device="cpu", precision=precision, threads=THREADS)
        backend = choose(sam, device, settings)
        return Row(
            f"encode on CPU ({backend.name} {backend.precision})",
            "torch fp32",
            at_most,
            lambda: backend.encode([pixels]),
            lambda: stock.encode([pixels]),
            agree,
            7,
        )

    yield (row(*kind) for kind in (("auto", 0.35), ("fp32", 0.6)))
