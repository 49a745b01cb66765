"""Size limits of pictures."""

from dataclasses import dataclass

from maskwire.pictures.errors import PictureError, unreadable

MAX_PIXELS = (1 << 31) - 1
"""Of any image, and of its masks: places in them have 31 bits in pycocotools."""

_BYTES_A_PIXEL = 8  # four samples of 16 bits


@dataclass(frozen=True)
class Limits:
    """Limits that are checked before anything is decoded."""

    max_pixels: int | None = None  # largest width x height; None for no limit

    def check(self, width: int, height: int) -> None:
        """Refuses a picture without pixels, or with too many.

        Raises:
            PictureError: IMAGE_UNREADABLE or IMAGE_TOO_LARGE.
        """
        if width <= 0 or height <= 0:
            raise unreadable(f"the image states a size of {width}x{height} pixels")
        if self.max_pixels is not None and width * height > self.max_pixels:
            raise PictureError(
                "IMAGE_TOO_LARGE",
                f"the image has {width}x{height} pixels; at most {self.max_pixels} are accepted, so scale it down",
            )

    def check_bytes(self, size: int) -> None:
        """Refuses a picture whose samples take more bytes than 16-bit RGBA of the largest size.

        Raises:
            PictureError: IMAGE_TOO_LARGE.
        """
        if self.max_pixels is not None and size > self.max_pixels * _BYTES_A_PIXEL:
            raise PictureError(
                "IMAGE_TOO_LARGE",
                f"the image's samples take {size} bytes; at most {self.max_pixels * _BYTES_A_PIXEL} are accepted, "
                "so scale it down or leave channels out",
            )
