"""Decodes image files in this process, by the rules of docs/reference/pictures.md."""

import logging
import warnings

from maskwire.pictures import Picture, PictureError, Stretch
from maskwire_core.errors import InvalidArgument

from maskwire_encoder.image_input.decoding import decode

# Pillow's complaints about a file are sent to its sender; in the log they would name no request.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)


def read_image(data: bytes, max_pixels: int, stretch: Stretch = "auto") -> Picture:
    """Decodes an image file. For files of strangers, see `reader_pool`.

    Args:
        data: The content of the file.
        max_pixels: Largest width x height to decode.
        stretch: How samples of more than 8 bits are mapped to 8 bits.

    Raises:
        InvalidArgument: IMAGE_UNREADABLE, IMAGE_TOO_LARGE, IMAGE_TOO_COSTLY or EMPTY_IMAGE, for the field "image".
    """
    try:
        return decode(data, max_pixels, stretch)
    except PictureError as error:
        raise refused(error) from error


def refused(error: PictureError) -> InvalidArgument:
    """The error of an image file that is not decoded."""
    return InvalidArgument(error.reason, error.message, field="image")


def too_large(may_take: int, most: int) -> PictureError:
    """The reason for which a file is not decoded that may take more bytes than there are for it."""
    return PictureError(
        "IMAGE_TOO_LARGE",
        f"decoding the file may take {may_take >> 20} MiB of memory, and {most >> 20} are accepted (--decode-bytes); "
        "scale it down, or save it as JPEG",
    )
