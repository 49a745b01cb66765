"""Errors about pictures, worded for the person who sent the picture."""

import re

_ADDRESS = re.compile(r"<[^<>]* object at 0x[0-9a-fA-F]+>")


class PictureError(Exception):
    """A picture cannot be decoded, or is refused.

    Args:
        reason: Stable name in UPPER_SNAKE_CASE: EMPTY_IMAGE, IMAGE_UNREADABLE, IMAGE_TOO_LARGE,
            IMAGE_TOO_COSTLY, BAD_STRETCH, BAD_CHANNELS or BAD_IMAGE.
        message: What is wrong and how to fix it, as a clause without a capital letter.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def unreadable(message: str) -> PictureError:
    """Makes the error for a damaged file or an unsupported format."""
    return PictureError("IMAGE_UNREADABLE", message)


def too_costly(message: str) -> PictureError:
    """Makes the error for a file that takes work or memory out of proportion to its picture.

    Args:
        message: What takes it.
    """
    return PictureError("IMAGE_TOO_COSTLY", f"{message}; save it again as an ordinary JPEG or PNG, or scale it down")


def decoder_message(error: BaseException) -> str:
    """Returns a decoder's error message without object addresses and without the final full stop."""
    if isinstance(error, MemoryError):
        return "it does not fit into memory"
    message = _ADDRESS.sub("the file", " ".join(str(error).split()))[:200].rstrip(".")
    return message or type(error).__name__
