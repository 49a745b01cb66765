"""Images as they are named on the command line: files, URLs, standard input, names of stored images."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import cast
from urllib.parse import unquote, urlsplit

from maskwire.client import Client
from maskwire.connection import looks_like_a_file
from maskwire.downloads import fetch, is_url
from maskwire.errors import InvalidRequest
from maskwire.pictures import Stretch
from maskwire.results import EmbeddedImage
from maskwire.sources import ImageLike, Reading, Source

ENDINGS = (
    *(".avif", ".bmp", ".gif", ".heic", ".heif", ".ico", ".j2k", ".jp2", ".jpeg", ".jpg", ".jxl", ".pbm", ".pgm"),
    *(".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
)
"""Endings of names that mean a picture file."""


@dataclass(frozen=True)
class Input:
    """An image of the command line.

    Attributes:
        text: As the user wrote it; for messages.
        image: What `Client` takes.
        stem: How files that are written for it begin.
        is_stored: Whether it is the name of a stored image, whose picture is not at hand.
    """

    text: str
    image: ImageLike
    stem: str
    is_stored: bool = False

    def loaded(self) -> "Input":
        """The same with the bytes of the picture, where that is at a URL.

        Raises:
            InvalidRequest: It cannot be fetched.
        """
        is_at_url = isinstance(self.image, str) and not self.is_stored
        return replace(self, image=fetch(self.text)) if is_at_url else self


def read(text: str) -> Input:
    """Looks at an image before anything is done with it.

    Raises:
        InvalidRequest: It looks like a file and is none, is a folder, or standard input is a terminal or empty.
    """
    if text == "-":
        return Input("standard input", _standard_input(), "image")
    if is_url(text):
        return Input(text, text, PurePosixPath(unquote(urlsplit(text).path)).stem or "image")
    path = Path(text)
    if path.is_dir():
        raise InvalidRequest(f"{text} is a folder; give its files, such as {path / '*.jpg'}", "IS_FOLDER", "image")
    if path.exists():
        return Input(text, path, path.stem)
    if looks_like_a_file(text):
        raise InvalidRequest(f"no such file: {text}", "NO_SUCH_FILE", "image")
    return stored(text)


def stored(name: str) -> Input:
    """The image that is stored under a name."""
    return Input(name, name, Path(name).name, is_stored=True)


def embedded(
    client: Client, source: Input, image_id: str | None, model: str, stretch: str
) -> tuple[str | EmbeddedImage, bool]:
    """Embeds an image of the command line, under a name that is the same for the same file.

    Args:
        client: With which.
        source: The image.
        image_id: Its name; None derives one from the file's content.
        model: Name of the model; empty for the encoder's default.
        stretch: How its samples are mapped to 8 bits.

    Returns:
        What further calls take as the image, and whether its embedding was stored already.
    """
    if source.is_stored:
        if model or image_id or stretch != "auto":
            option = "--model" if model else "--image-id" if image_id else "--stretch"
            raise InvalidRequest(f"{source.text!r} is stored already; give the image's file", "STORED_IMAGE", option)
        return source.text, True
    picture = source.loaded().image
    name = image_id or as_source(picture, stretch).content_name()
    found = client.embed(picture, name, model=model, stretch=cast(Stretch, stretch))
    return found, found.cached


def as_source(image: ImageLike, stretch: str) -> Source:
    """An image, to be read with a stretch of the command line."""
    return Source(image, Reading(stretch=cast(Stretch, stretch)))


def _standard_input() -> bytes:
    if sys.stdin.isatty():
        raise InvalidRequest(
            "standard input is a terminal; pipe an image file into it: maskwire segment - < photo.jpg",
            "STDIN_IS_TERMINAL",
            "image",
        )
    data = sys.stdin.buffer.read()
    if not data:
        raise InvalidRequest("standard input is empty; pipe an image file into it", "EMPTY_STDIN", "image")
    return data
