"""Images in requests: files as base64, and coordinates in them."""

import base64
import io
from collections.abc import Iterator

from maskwire_core.http.problems import Problem

_TOLERATED = str.maketrans({"-": "+", "_": "/", "\n": "", "\r": "", " ": "", "\t": ""})
_PIECE = 1 << 18  # characters that are decoded at a time, of four bytes where one is rare; a multiple of four


def decode_image(value: str, field: str = "image.value") -> bytes:
    """Decodes an image file from base64 or a data URI.

    Args:
        value: The text.
        field: Path of the text in the request, for errors.

    Raises:
        Problem: BAD_BASE64 or EMPTY_IMAGE.
    """
    start = 0
    if value[:5].lower() == "data:":
        start = value.find(",") + 1
        if not value[: max(0, start - 1)].lower().rstrip().endswith(";base64"):
            raise Problem(400, "the data URI has no base64 in it", "BAD_BASE64", field)
    try:
        data = decode_base64(value, start)
    except ValueError as error:
        raise Problem(
            400, f"the value is no base64 ({error}); encode the image file's bytes", "BAD_BASE64", field
        ) from error
    if not data:
        raise Problem(400, "the image is empty", "EMPTY_IMAGE", field)
    return data


def decode_base64(text: str, start: int = 0) -> bytes:
    """Decodes base64, also with line breaks and blanks, in the alphabet for URLs, or without padding. Takes little more
    memory than the text and the result.

    Args:
        text: The text.
        start: Where in it the base64 begins.

    Raises:
        ValueError: It is no base64.
    """
    try:
        return _decode(text[at : at + _PIECE] for at in range(start, len(text), _PIECE))
    except ValueError:
        return _decode(_plain(text, start))


def _decode(pieces: Iterator[str]) -> bytes:
    """Decodes pieces of base64, each but the last of whole quads."""
    data, is_padded = io.BytesIO(), False
    for piece in pieces:
        if is_padded:
            raise ValueError("padding within the text")
        data.write(base64.b64decode(piece, validate=True))
        is_padded = piece.endswith("=")
    return data.getvalue()


def _plain(text: str, start: int) -> Iterator[str]:
    """Yields what may stand for base64 as pieces of it."""
    end = max(start, len(text) - _PIECE)
    end += len(text[end:].rstrip("= \n\r\t"))
    carried = ""
    for at in range(start, end, _PIECE):
        plain = carried + text[at : min(at + _PIECE, end)].translate(_TOLERATED)
        whole = len(plain) // 4 * 4
        yield plain[:whole]
        carried = plain[whole:]
    yield carried + "=" * (-len(carried) % 4)


def clip_to_image(x: float, y: float, width: int, height: int) -> tuple[float, float]:
    """The position within an image that is closest to (x, y), all in pixels. The edges belong to the image."""
    return min(max(x, 0), width), min(max(y, 0), height)
