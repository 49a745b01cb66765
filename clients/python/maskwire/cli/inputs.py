"""Images as the command line names them: files, URLs, standard input, names of stored images."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from maskwire.cli.options import EmbeddingOptions, LargeTiffOptions
from maskwire.client import Client
from maskwire.downloads import fetch, is_url
from maskwire.embedded_image import EmbeddedImage
from maskwire.errors import InvalidRequest
from maskwire.large_tiff import LargeTiff
from maskwire.sources import ImageLike, Reading, Source
from maskwire.wanted_image import looks_like_a_file

_NOT_LARGE = LargeTiffOptions()


@dataclass(frozen=True)
class Input:
    """An image that the command line names."""

    text: str  # the name as the user wrote it, for messages
    image: ImageLike  # the image as `Client` takes it
    stem: str  # beginning of the names of output files
    is_stored: bool = False  # whether it is the name of a stored image, so that the picture is not available

    def loaded(self) -> "Input":
        """Returns the input with its URL, if it has one, replaced by the bytes at that URL."""
        is_at_url = isinstance(self.image, str) and not self.is_stored
        return replace(self, image=fetch(self.text)) if is_at_url else self


def find_input(text: str) -> Input:
    """Finds out what an IMAGE argument means.

    Raises:
        InvalidRequest: It looks like a file that does not exist, is a folder, or is standard input, which is a terminal
            or empty.
    """
    if text == "-":
        return Input("standard input", _read_standard_input(), "image")
    if is_url(text):
        return Input(text, text, PurePosixPath(unquote(urlsplit(text).path)).stem or "image")
    path = Path(text)
    if path.is_dir():
        raise InvalidRequest(f"{text} is a folder; give its files, such as {path / '*.jpg'}", "IS_FOLDER", "image")
    if path.exists():
        return Input(text, path, path.stem)
    if looks_like_a_file(text):
        raise InvalidRequest(f"no such file: {text}", "NO_SUCH_FILE", "image")
    return stored_input(text)


def stored_input(name: str) -> Input:
    """Returns the image that is stored under a name."""
    return Input(name, name, Path(name).name, is_stored=True)


def picture_of(source: Input, options: EmbeddingOptions, large: LargeTiffOptions = _NOT_LARGE) -> Source:
    """Returns the picture of an image that is a file or at a URL, to be read as options say.

    Raises:
        InvalidRequest: Options contradict one another, or it cannot be read.
    """
    if large.large_tiff:
        if not isinstance(source.image, Path):
            raise InvalidRequest(
                f"{source.text} is not a file, of which parts can be read; save it first", "BAD_IMAGE", "--large-tiff"
            )
        if large.levels is not None and options.stretch != EmbeddingOptions.stretch:
            raise InvalidRequest("--levels takes the place of --stretch; give one of them", "BAD_STRETCH", "--levels")
        return LargeTiff(source.image, stretch=large.levels or options.stretch, bands=large.bands)
    for option, value, reason in (("--bands", large.bands, "BAD_BANDS"), ("--levels", large.levels, "BAD_STRETCH")):
        if value is not None:
            raise InvalidRequest(
                f"{option} is for TIFFs that are read by windows; give --large-tiff, too", reason, option
            )
    return Source(source.loaded().image, Reading(stretch=options.stretch))


def embed_input(
    client: Client, source: Input, options: EmbeddingOptions, large: LargeTiffOptions = _NOT_LARGE
) -> tuple[str | EmbeddedImage, bool]:
    """Embeds an image unless it is stored already; the name of a stored one is refused with options for embedding it.

    Returns:
        The image as further calls take it, and whether its embedding was stored already.
    """
    if source.is_stored:
        if (options, large) != (EmbeddingOptions(), _NOT_LARGE):
            given = {
                "--model": options.model,
                "--image-id": options.image_id,
                "--large-tiff": large.large_tiff,
                "--bands": large.bands,
                "--levels": large.levels,
            }
            option = next((name for name, value in given.items() if value), "--stretch")
            raise InvalidRequest(f"{source.text!r} is stored already; give the image's file", "STORED_IMAGE", option)
        return source.text, True
    found = embed_file(client, source, options, large)
    return found, found.cached


def embed_file(
    client: Client,
    source: Input,
    options: EmbeddingOptions,
    large: LargeTiffOptions = _NOT_LARGE,
    *,
    bulk: bool = False,
    tiles: bool = False,
    keep_source: bool = False,
) -> EmbeddedImage:
    """Embeds an image file, and its tiles if wanted, under its given name, or else under a digest of its content and
    stretch; the file may be kept by the encoder."""
    picture = picture_of(source, options, large)
    name = options.image_id or picture.content_name()
    return client.embed(picture, name, model=options.model, bulk=bulk, tiles=tiles, keep_source=keep_source)


def _read_standard_input() -> bytes:
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
