"""Images in requests: files as base64, and coordinates in them."""

import base64

from maskwire_core.http.problems import Problem

_TOLERATED = str.maketrans({"-": "+", "_": "/", "\n": "", "\r": "", " ": "", "\t": ""})


def decode_image(value: str, field: str = "image.value") -> bytes:
    """Decodes an image file from base64 or a data URI.

    Args:
        value: The text.
        field: Path of the text in the request, for errors.

    Raises:
        Problem: BAD_BASE64 or EMPTY_IMAGE.
    """
    if value[:5].lower() == "data:":
        start, comma, value = value.partition(",")
        if not comma or not start.lower().rstrip().endswith(";base64"):
            raise Problem(400, "the data URI has no base64 in it", "BAD_BASE64", field)
    try:
        data = decode_base64(value)
    except ValueError as error:
        raise Problem(
            400, f"the value is no base64 ({error}); encode the image file's bytes", "BAD_BASE64", field
        ) from error
    if not data:
        raise Problem(400, "the image is empty", "EMPTY_IMAGE", field)
    return data


def decode_base64(text: str) -> bytes:
    """Decodes base64, also with line breaks and blanks, in the alphabet for URLs, or without padding.

    Raises:
        ValueError: It is no base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        plain = text.translate(_TOLERATED).rstrip("=")
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)


def clip_to_image(x: float, y: float, width: int, height: int) -> tuple[float, float]:
    """The position within an image that is closest to (x, y), all in pixels. The edges belong to the image."""
    return min(max(x, 0), width), min(max(y, 0), height)
