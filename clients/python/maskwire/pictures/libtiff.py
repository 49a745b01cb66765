"""Silences libtiff, which writes errors to standard error without saying which file they are about."""

import contextlib
import ctypes
import functools
import sys
from pathlib import Path

import PIL


@functools.cache
def silence_libtiff() -> None:
    """Removes the error and warning handlers of Pillow's libtiff; errors are still raised as exceptions.

    Has no effect where that library is not found, such as on Windows, where it is linked into Pillow.
    """
    for path in _libraries():
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(path)
            for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
                handler = getattr(library, name)
                handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
                handler(None)


def _libraries() -> list[str]:
    """Finds Pillow's libtiff among the loaded libraries (Linux), or inside the wheel (macOS)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            lines = Path("/proc/self/maps").read_text().splitlines()
            return sorted({line.split()[-1] for line in lines if "/libtiff" in line})
    package = Path(PIL.__file__).parent
    return [str(path) for path in (package / ".dylibs").glob("libtiff*")]
