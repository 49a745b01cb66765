"""Writes animated GIFs frame by frame: Pillow's writer holds all frames in memory."""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import GifImagePlugin, Image

from maskwire.video.colours import Colour

_COLOURS = 255
_RESERVED = 64  # of them at most for given ones
_TRANSPARENT = 255  # the last number: a pixel that stays as it was
_SAMPLE = 96  # side of the small picture that colours are judged by
_GOOD_ERROR = 5.0  # mean distance of a frame's colours from the palette, in levels, up to which it is kept
_WORSE = 1.5  # a palette is kept for as long as frames are at most so many times as far from it as its own
_DITHERING = 10.0  # levels by which the pattern below moves a pixel at most, up and down together
_SHORTEST_CS = 2  # browsers slow down what is shown for less
_KEEP_FRAME = 1  # disposal: the next frame is drawn over this one


def _bayer(order: int) -> NDArray[np.float32]:
    """Returns Bayer's matrix of a power of 2, from -0.5 to 0.5."""
    matrix = np.zeros((1, 1))
    while len(matrix) < order:
        matrix = np.block([[4 * matrix, 4 * matrix + 2], [4 * matrix + 3, 4 * matrix + 1]])
    return ((matrix + 0.5) / matrix.size - 0.5).astype(np.float32)


class GifWriter:
    """An animated GIF. A frame is written when the next one comes, which says for how long it is shown.

    Colours are dithered by a fixed pattern and by one palette for as long as it fits, so that what does not move
    does not flicker, and costs nothing: of each frame only the part that changes is stored.

    Args:
        path: File to write.
        size: Width and height of all frames.
        frame_rate: Frames of a second, for the last frame.
        colours: Colours that every palette has, such as those of objects that are not to be seen at first.
    """

    def __init__(self, path: Path, size: tuple[int, int], frame_rate: float, colours: Sequence[Colour] = ()) -> None:
        self._file = path.open("wb")
        self._size = size
        self._frame_s = 1 / frame_rate
        self._colours = [level for colour in colours[:_RESERVED] for level in colour]
        self._palette: Image.Image | None = None
        self._accepted = _GOOD_ERROR
        self._shown: NDArray[np.uint8] | None = None  # colour numbers that are on screen; None: of another palette
        self._waiting: tuple[Image.Image, float] | None = None
        self._begins_s = 0.0
        self._written_cs = 0  # the time up to which frames are written
        rows, columns = -(-size[1] // 8), -(-size[0] // 8)
        self._pattern = (_DITHERING * np.tile(_bayer(8), (rows, columns)))[: size[1], : size[0], None]
        self._file.write(b"GIF89a" + struct.pack("<HHBBB", *size, 0x70, 0, 0))
        self._file.write(b"\x21\xff\x0bNETSCAPE2.0\x03\x01\0\0\0")  # repeats for ever

    def write(self, picture: Image.Image, time_s: float) -> None:
        """Adds an RGB picture that is shown from a time on. One that would be shown for less than 20 ms is left out."""
        if self._waiting is None:
            self._begins_s = time_s
        elif not self._flush(time_s):
            return
        self._waiting = picture, time_s

    def close(self) -> None:
        """Writes the last frame and closes the file."""
        if self._waiting is not None:
            self._flush(max(self._waiting[1] + self._frame_s, self._begins_s + (self._written_cs + _SHORTEST_CS) / 100))
        self._file.write(b";")
        self._file.close()

    def _flush(self, until_s: float) -> bool:
        """Writes the frame that waits; not if it were shown too briefly."""
        assert self._waiting is not None
        shown_cs = round((until_s - self._begins_s) * 100) - self._written_cs  # rounded such that errors do not add up
        if shown_cs < _SHORTEST_CS:
            return False
        self._write(self._waiting[0], shown_cs)
        self._written_cs += shown_cs
        return True

    def _write(self, picture: Image.Image, shown_cs: int) -> None:
        small = picture.resize((_SAMPLE, _SAMPLE), Image.Resampling.NEAREST)
        if self._palette is None or _distance(small, self._palette) > self._accepted:
            self._palette = self._make_palette(picture)
            self._accepted = max(_GOOD_ERROR, _WORSE * _distance(small, self._palette))
            self._shown = None
        dithered = Image.fromarray(np.clip(np.asarray(picture, np.float32) + self._pattern, 0, 255).astype(np.uint8))
        numbers = np.array(dithered.quantize(palette=self._palette, dither=Image.Dither.NONE))
        x, y, part = 0, 0, numbers
        if self._shown is not None:
            changed = numbers != self._shown
            rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
            if not len(rows):
                rows = columns = np.zeros(1, int)
            x, y = int(columns[0]), int(rows[0])
            window = slice(y, int(rows[-1]) + 1), slice(x, int(columns[-1]) + 1)
            part = np.where(changed, numbers, _TRANSPARENT)[window].astype(np.uint8)
        self._shown = numbers
        self._write_part(part, x, y, shown_cs)

    def _make_palette(self, picture: Image.Image) -> Image.Image:
        free = _COLOURS - len(self._colours) // 3
        levels = picture.quantize(free, Image.Quantize.MEDIANCUT, kmeans=1).getpalette() or []
        palette = Image.new("P", (1, 1))
        palette.putpalette([*self._colours, *levels[: 3 * free]])
        return palette

    def _write_part(self, part: NDArray[np.uint8], x: int, y: int, shown_cs: int) -> None:
        image = Image.fromarray(part).convert("P")
        image.putpalette(_padded(self._palette.getpalette() if self._palette else None))
        blocks = GifImagePlugin.getdata(
            image,
            (x, y),
            duration=shown_cs * 10,
            disposal=_KEEP_FRAME,
            transparency=_TRANSPARENT,
            include_color_table=True,
        )
        self._file.write(b"".join(blocks))


def _padded(palette: Sequence[int] | None) -> list[int]:
    """Fills a palette up to 256 colours."""
    return [*(palette or ())[: 3 * _COLOURS], *[0] * (768 - len((palette or ())[: 3 * _COLOURS]))]


def _distance(picture: Image.Image, palette: Image.Image) -> float:
    near = picture.quantize(palette=palette, dither=Image.Dither.NONE).convert("RGB")
    return float(np.abs(np.asarray(near, np.float32) - np.asarray(picture, np.float32)).mean())
