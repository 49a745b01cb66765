"""Memory that an encoder shares with a process that reads image files: a file goes in, its pixels come out."""

import mmap
import os
import sys
import tempfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEPT_BYTES = 64 << 20
"""Memory that a buffer keeps between files. Pages that are there already cost nothing; more is given back."""


class SharedBuffer:
    """Shared memory of a fixed size, of which only what was written takes memory.

    Args:
        size: Its size in bytes.
        fd: Descriptor of another process's buffer; if None, a buffer is made.
    """

    def __init__(self, size: int, fd: int | None = None) -> None:
        self.size = size
        self.fd = _make(size) if fd is None else fd
        self._map = mmap.mmap(self.fd, size)
        self._bytes = np.frombuffer(self._map, np.uint8)

    def close(self) -> None:
        """Gives the memory back when the last array in it is gone."""
        os.close(self.fd)
        del self._bytes, self._map

    def room(self, size: int) -> NDArray[np.uint8]:
        """Returns the first `size` bytes."""
        if size > self.size:
            raise MemoryError
        return self._bytes[:size]

    def write_file(self, data: bytes) -> None:
        """Puts a file in."""
        self.room(len(data))[:] = np.frombuffer(data, np.uint8)

    def read_file(self, size: int) -> bytes:
        """Takes a file of `size` bytes out, as a copy."""
        return os.pread(self.fd, size, 0) if size < 1 << 30 else self.room(size).tobytes()

    def put(self, pixels: NDArray[np.uint8]) -> list[list[int]]:
        """Puts pixels in, unless they lie there already.

        Args:
            pixels: HxWx3, possibly a flipped or transposed view, which stays one.

        Returns:
            What `pixels` takes: offset, shape and strides.
        """
        start = self._bytes.ctypes.data
        if not start <= pixels.ctypes.data < start + self.size:
            stored, flips, swapped = _as_stored(pixels)
            placed = self.room(stored.size).reshape(stored.shape)
            placed[...] = stored
            pixels = (placed.swapaxes(0, 1) if swapped else placed)[flips]
        return [[pixels.ctypes.data - start], list(pixels.shape), list(pixels.strides)]

    def pixels(self, place: Any) -> NDArray[np.uint8]:
        """Returns pixels by what `put` has returned. They are valid until the buffer is used again.

        Raises:
            ValueError: They would lie outside of the buffer.
        """
        (offset,), shape, strides = place
        if not (len(shape) == len(strides) == 3 and shape[2] == 3 and min(shape) > 0):
            raise ValueError(f"pixels of shape {shape}")
        return np.ndarray(shape, np.uint8, self._map, offset, strides)

    def trim(self) -> None:
        """Gives back memory beyond `KEPT_BYTES`."""
        if self.size > KEPT_BYTES and hasattr(mmap, "MADV_REMOVE"):
            self._map.madvise(mmap.MADV_REMOVE, KEPT_BYTES, self.size - KEPT_BYTES)


def _make(size: int) -> int:
    if sys.platform == "linux":
        fd = os.memfd_create("maskwire pixels", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, size)
        import fcntl

        # A process that reads files could otherwise make the memory shorter under the encoder, which would be killed.
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        return fd
    with tempfile.TemporaryFile() as file:
        file.truncate(size)
        return os.dup(file.fileno())


def _as_stored(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], tuple[slice, ...], bool]:
    """Undoes the flips and the transposition of a view.

    Returns:
        The pixels in the order in which they lie in memory, the flips, and whether rows and columns were swapped;
        swapping comes before flipping.
    """
    flips = tuple(slice(None, None, -1 if step < 0 else 1) for step in pixels.strides)
    stored = pixels[flips]
    swapped = stored.strides[0] < stored.strides[1]
    return (stored.swapaxes(0, 1) if swapped else stored), flips, swapped
