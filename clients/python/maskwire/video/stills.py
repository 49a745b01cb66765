"""Folders and lists of pictures as clips."""

import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from maskwire.errors import InvalidRequest
from maskwire.pictures.formats import ENDINGS
from maskwire.sources import ImageLike, Source
from maskwire.video.frame import StoredFrame


class Stills:
    """Pictures as a source of frames, which have no times. Files are read one by one.

    Args:
        pictures: Paths, files' bytes, PIL images or arrays, one for each frame.

    Attributes:
        frame_rate: Frames of a second, as given.
        frames: Number of pictures.

    Raises:
        InvalidRequest: NO_FRAMES: there are none.
    """

    has_times = False

    def __init__(self, pictures: Sequence[ImageLike], frame_rate: float) -> None:
        if len(pictures) == 0:  # of an array, `not` would ask its values
            raise InvalidRequest("the list has no pictures; give one for each frame", "NO_FRAMES", "clip")
        self.names = [
            Path(each).name if isinstance(each, str | Path) else f"frame {index}" for index, each in enumerate(pictures)
        ]
        self._pictures = pictures
        self.frame_rate = frame_rate
        self.frames = len(pictures)

    def read(self, start_s: float) -> Iterator[StoredFrame]:
        """Yields all frames."""
        for name, picture in zip(self.names, self._pictures, strict=True):
            yield StoredFrame(None, name, functools.partial(Source, picture))


def pictures_in(folder: Path) -> list[Path]:
    """Lists the image files of a folder in natural order: frame-2.jpg before frame-10.jpg.

    Raises:
        InvalidRequest: NO_FRAMES: there are none. UNREADABLE_FILE: the folder cannot be read.
    """
    try:
        files = [each for each in folder.iterdir() if each.suffix.lower() in ENDINGS and not each.name.startswith(".")]
    except OSError as error:
        raise InvalidRequest(f"cannot read {folder}: {error.strerror or error}", "UNREADABLE_FILE", "clip") from error
    if not files:
        raise InvalidRequest(
            f"the folder {folder} has no image files; looked for {', '.join(ENDINGS)}", "NO_FRAMES", "clip"
        )
    return sorted(files, key=lambda file: natural_key(file.name))


def natural_key(name: str) -> tuple[list[tuple[bool, int, str]], str]:
    """Returns a key that sorts names with numbers in them as people do."""
    parts = re.findall(r"\d+|\D+", name.casefold())
    return [(False, int(part), "") if part.isdecimal() else (True, 0, part) for part in parts], name
