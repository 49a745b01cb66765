"""JPEG to a model's input, against Pillow and sam2's SAM2Transforms.

python bench/rows/jpeg.py
"""

import io
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from maskwire_encoder.images import read_image  # noqa: E402
from maskwire_encoder.preprocessing import prepare  # noqa: E402
from reference import SAM2Transforms  # noqa: E402

SIZE = 1024
STD = np.array([0.229, 0.224, 0.225])[:, None, None]
ROUNDS = 15


def photograph(width: int, height: int, quality: int = 90) -> bytes:
    """The sample photograph enlarged, with the noise of a sensor, as JPEG."""
    enlarged = Image.open(ROOT / "examples" / "coffee.jpg").resize((width, height), Image.Resampling.LANCZOS)
    noise = np.random.default_rng(0).normal(0, 2, (height, width, 3))
    file = io.BytesIO()
    Image.fromarray((np.array(enlarged) + noise).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
    return file.getvalue()


def ours(data: bytes) -> Tensor:
    return prepare(read_image(data, 100_000_000), SIZE)


def stock(data: bytes) -> Tensor:
    transform = SAM2Transforms(resolution=SIZE, mask_threshold=0.0)
    result: Tensor = transform(np.array(Image.open(io.BytesIO(data)).convert("RGB")))
    return result


def error(data: bytes) -> float:
    """Largest difference in levels of 255."""
    return float(np.abs((ours(data) - stock(data)).numpy() * STD * 255).max())


def main() -> None:
    for width, height in ((1800, 1200), (4000, 3000), (6000, 4000)):
        data = photograph(width, height)
        times: dict[str, list[float]] = {"ours": [], "stock": []}
        for _ in range(ROUNDS):
            for name, function in (("ours", ours), ("stock", stock)):
                started = time.perf_counter()
                function(data)
                times[name].append(time.perf_counter() - started)
        mine, theirs = statistics.median(times["ours"]), statistics.median(times["stock"])
        print(
            f"{width}x{height}, {len(data)} bytes: {mine * 1e3:.1f} ms against {theirs * 1e3:.1f} ms, "
            f"{mine / theirs:.3f}x; error at most {error(data):.2f} levels"
        )


if __name__ == "__main__":
    main()
