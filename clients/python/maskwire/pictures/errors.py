"""What is wrong with a picture, in the words of whoever sent it."""

import re

_ADDRESS = re.compile(r"<[^<>]* object at 0x[0-9a-fA-F]+>")


class PictureError(Exception):
    """A picture cannot be read, or is refused.

    Args:
        reason: Stable name in UPPER_SNAKE_CASE: EMPTY_IMAGE, IMAGE_UNREADABLE, IMAGE_TOO_LARGE, BAD_STRETCH,
            BAD_CHANNELS or BAD_IMAGE.
        message: What is wrong and what to do about it, as a clause without a capital letter.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def unreadable(message: str) -> PictureError:
    """The file is damaged, or of a kind that is not read."""
    return PictureError("IMAGE_UNREADABLE", message)


def words(error: BaseException) -> str:
    """What a decoder said, without addresses of this process's objects and without a full stop."""
    if isinstance(error, MemoryError):
        return "it does not fit into memory"
    said = _ADDRESS.sub("the file", " ".join(str(error).split()))[:200].rstrip(".")
    return said or type(error).__name__
