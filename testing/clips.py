"""Small films and animations for tests, whose frames can be told apart."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

RED, GREEN, BLUE = (200, 40, 40), (40, 180, 60), (50, 80, 210)


def numbered(number: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Makes a picture that shows its number: grey 4 x number on a field of three colours, red at the top left."""
    picture = Image.new("RGB", size, BLUE)
    picture.paste(RED, (0, 0, size[0] // 2, size[1] // 2))
    picture.paste(GREEN, (size[0] // 2, 0, size[0], size[1] // 2))
    picture.paste((4 * number,) * 3, (0, size[1] // 2, size[0] // 2, size[1]))
    return picture


def number_of(picture: Image.Image) -> int:
    """Reads the number of a picture."""
    pixels = np.asarray(picture.convert("L"), float)
    height, width = pixels.shape
    return round(pixels[height * 5 // 8 : height * 7 // 8, width // 8 : width * 3 // 8].mean() / 4)


def write_film(
    path: Path,
    pictures: Sequence[Image.Image],
    *,
    times_s: Sequence[float] | None = None,
    fps: int = 10,
    codec: str = "libx264",
    pixel_shape: Fraction | None = None,
    gop: int = 12,
) -> Path:
    """Writes a film of the format of its ending, with frames at given times or `fps` a second."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=fps)
        stream.width, stream.height = pictures[0].size
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 2_000_000
        stream.codec_context.gop_size = gop
        base = Fraction(1, fps if times_s is None else 1000)
        stream.codec_context.time_base = base
        if pixel_shape is not None:
            stream.codec_context.sample_aspect_ratio = pixel_shape
        for index, picture in enumerate(pictures):
            frame: Any = av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")
            frame = frame.reformat(format="yuv420p")
            frame.pts = index if times_s is None else round(1000 * times_s[index])
            frame.time_base = base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def disc(size: tuple[int, int], x: float, y: float, radius: float) -> NDArray[np.bool_]:
    """Makes the mask of a disc."""
    rows, columns = np.mgrid[: size[1], : size[0]]
    inside: NDArray[np.bool_] = (columns - x) ** 2 + (rows - y) ** 2 <= radius**2
    return inside
