"""Images in requests: files as base64, and coordinates in them."""

import base64
import binascii

from maskwire_core.http.problems import Problem

_TOLERATED = str.maketrans({"-": "+", "_": "/", "\n": "", "\r": "", " ": "", "\t": ""})


def decode_base64(value: str, field: str = "image.value") -> bytes:
    """Decodes an image file from base64, with or without the beginning of a data URI.

    Line breaks, blanks, the alphabet for URLs and missing padding are accepted.

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
        try:
            data = base64.b64decode(value, validate=True)
        except ValueError:
            plain = value.translate(_TOLERATED).rstrip("=")
            data = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Problem(
            400, f"the value is no base64 ({error}); encode the image file's bytes", "BAD_BASE64", field
        ) from error
    if not data:
        raise Problem(400, "the image is empty", "EMPTY_IMAGE", field)
    return data


def clip_to_image(x: float, y: float, width: int, height: int) -> tuple[float, float]:
    """Returns the position within an image that is closest to (x, y).

    Args:
        x: Pixels from the left edge.
        y: Pixels from the top edge.
        width: Width of the image in pixels. The edge itself, x = width, belongs to the image.
        height: Height of the image in pixels.
    """
    return min(max(x, 0), width), min(max(y, 0), height)
