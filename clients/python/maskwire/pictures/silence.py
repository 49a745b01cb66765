"""libtiff writes errors to the process's standard error, where nothing says whose file it was."""

import contextlib
import ctypes
import functools
import sys
from pathlib import Path

import PIL


@functools.cache
def libtiff() -> None:
    """Makes the libtiff that Pillow has loaded say nothing; what is wrong with a file is told as an exception.

    Where Pillow's libtiff is not found (it is part of Pillow itself on Windows), its lines stay.
    """
    for path in _libraries():
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(path)
            for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
                handler = getattr(library, name)
                handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
                handler(None)


def _libraries() -> list[str]:
    """Where Pillow's libtiff is: beside it in a wheel, else among the libraries that are loaded."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            lines = Path("/proc/self/maps").read_text().splitlines()
            return sorted({line.split()[-1] for line in lines if "/libtiff" in line})
    package = Path(PIL.__file__).parent
    return [str(path) for path in (package / ".dylibs").glob("libtiff*")]
