"""Sizes of images in answers, by which masks take memory here."""

from maskwire.errors import bad_answer
from maskwire.pictures.limits import MAX_PIXELS


def check_size(width: int, height: int, known: tuple[int, int] | None = None) -> tuple[int, int]:
    """Returns the width and the height of an image that a server states, in pixels.

    Args:
        width: What the server states.
        height: Likewise.
        known: The size that the image has; None where only its name is known here.

    Raises:
        MaskwireError: BAD_ANSWER: it is another size, or more than 2^31 - 1 pixels.
    """
    if known is not None and (width, height) != known:
        raise bad_answer(f"it is of an image of {width}x{height} pixels, and not of {known[0]}x{known[1]}")
    if max(width, height, width * height) > MAX_PIXELS:
        raise bad_answer(f"an image of {width}x{height} pixels")
    return width, height
