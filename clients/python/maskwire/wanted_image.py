"""An image that a call is about, as far as it is known here: what is stored of it, and its picture."""

from dataclasses import dataclass
from pathlib import PurePath

from PIL import Image

from maskwire.embedded_image import EmbeddedImage
from maskwire.errors import ImageNotFound, InvalidRequest, MaskwireError
from maskwire.sources import Source

_FILE_ENDINGS = frozenset(Image.registered_extensions()) | {".heic", ".heif", ".avif", ".svg", ".npy", ".pdf"}


@dataclass
class Wanted:
    """An image as a call names it."""

    image_id: str  # the name to ask the servers for
    stored: EmbeddedImage | None  # what is stored of the image; None where the call gave a name alone
    source: Source | None  # its picture, likewise
    model: str  # the model that must have embedded it; empty for any
    may_be_path: bool = False  # whether the name looks like a file's
    region: EmbeddedImage | None = None  # what is stored of the region that is meant; None for the whole image

    @property
    def content_key(self) -> str:
        """Which image or region it is, whatever its name comes to mean; empty where only the name is known."""
        stored = self.region or self.stored
        return stored.content_key if stored is not None else ""

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height of the whole image in pixels; None where only its name is known."""
        return None if self.stored is None else self.stored.size

    def not_found(self, error: ImageNotFound) -> MaskwireError:
        """Makes the error to raise where no such image is stored: for a file's name, that there is no such file."""
        if not self.may_be_path or error.reason != "IMAGE_NOT_FOUND":
            return error
        return InvalidRequest(
            f"no such file: {self.image_id}; nor is an image stored under that name", "NO_SUCH_FILE", "image"
        )


def no_picture(wanted: Wanted) -> InvalidRequest:
    """Makes the error of a call that needs a picture which this client has not seen."""
    return InvalidRequest(
        f"this needs the picture of {wanted.image_id!r}, which this client has not seen; pass it (a region is also cut "
        "from the file that was kept with keep_source)",
        "NO_PICTURE",
        "image",
    )


def looks_like_a_file(name: str) -> bool:
    """Whether a name that is no existing file was meant as one rather than as the name of a stored image."""
    return any(separator in name for separator in "/\\") or PurePath(name).suffix.lower() in _FILE_ENDINGS
