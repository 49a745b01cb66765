"""Rows: from a JPEG file to the input of a model."""

import contextlib
import io
from collections.abc import Iterator

import numpy as np
from maskwire_encoder.image_input.preprocessing import prepare
from maskwire_encoder.image_input.reading import read_image
from PIL import Image
from torch import Tensor

from bench.harness import Row
from testing.paths import ROOT
from testing.reference.predictor import SAM2Transforms

SIZE = 1024
STD = np.array([0.229, 0.224, 0.225])[:, None, None]


def photograph(width: int, height: int, quality: int = 90) -> bytes:
    """Returns the sample photograph, enlarged and with the noise of a sensor, as a JPEG file."""
    enlarged = Image.open(ROOT / "examples" / "coffee.jpg").resize((width, height), Image.Resampling.LANCZOS)
    noise = np.random.default_rng(0).normal(0, 2, (height, width, 3))
    file = io.BytesIO()
    Image.fromarray((np.array(enlarged) + noise).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
    return file.getvalue()


def agree(ours: Tensor, other: Tensor) -> str:
    levels = float(np.abs((ours - other).numpy() * STD * 255).max())
    assert levels < 1, levels
    return f"within {levels:.2f} of 255 levels"


@contextlib.contextmanager
def rows() -> Iterator[Iterator[Row]]:
    transform = SAM2Transforms(resolution=SIZE, mask_threshold=0.0)

    def row(width: int, height: int, at_most: float) -> Row:
        data = photograph(width, height)
        return Row(
            f"{width * height / 1e6:.0f} MP JPEG to tensor ({len(data) / 1e6:.1f} MB)",
            "Pillow and SAM2Transforms",
            at_most,
            lambda: prepare(read_image(data, width * height).pixels, SIZE),
            lambda: transform(np.array(Image.open(io.BytesIO(data)).convert("RGB"))),
            agree,
        )

    yield (row(*size) for size in ((4000, 3000, 0.2), (1800, 1200, 1.0)))
