"""Files that are not all of a picture: regions, parts that are embedded by themselves, and smaller versions."""

from typing import NamedTuple

from maskwire.v1 import encoder_pb2 as pb
from maskwire_core import names
from maskwire_core.errors import InvalidArgument, embedding_expired
from maskwire_core.masks.geometry import Rectangle
from maskwire_core.storage.embedding import MAX_PIXELS, Header, Region
from maskwire_core.storage.store import Store


class Part(NamedTuple):
    """The part of an image that a file is."""

    image: str  # content key of the whole image
    place: Rectangle  # where the part is

    @property
    def identity(self) -> str:
        """What distinguishes it from an equal picture that is a part of another image, or another part of this one."""
        return f"{self.image} {' '.join(map(str, self.place))}"

    def region(self, whole: Header) -> Region:
        """What an embedding says of it, given the header of the whole image's."""
        return Region(self.image, self.place.x, self.place.y, whole.width, whole.height)


def parse_part(header: pb.EncodeImageHeader) -> Part | None:
    """Returns the part of an image that a file is said to be; None for an image.

    Raises:
        InvalidArgument: BAD_REGION or BAD_CONTENT_KEY.
    """
    if header.HasField("region") != bool(header.region_of):
        raise _bad_region("region and region_of belong together; give both or neither")
    if not header.region_of:
        return None
    sides = [getattr(header.region, side) for side in ("x_min_px", "y_min_px", "x_max_px", "y_max_px")]
    if not all(0 <= side < 1 << 31 and side == int(side) for side in sides):
        raise _bad_region("its sides must be whole pixels, not negative")
    left, top, right, bottom = map(int, sides)
    if left >= right or top >= bottom:
        raise _bad_region("it needs x_min < x_max and y_min < y_max")
    image = names.content_key(header.region_of, "header.region_of")
    return Part(image, Rectangle(left, top, right - left, bottom - top))


def find_whole(store: Store, namespace: str, image_id: str, part: Part, fingerprint: str) -> Header:
    """Returns what is known of the image that a file is a part of. Blocks.

    Args:
        store: Where its embedding is.
        namespace: The tenant's namespace.
        image_id: The image's name, for errors.
        part: Which part of which image.
        fingerprint: Digest of the model that is to embed the part.

    Raises:
        NotFound: EMBEDDING_EXPIRED.
        InvalidArgument: BAD_REGION or OTHER_MODEL.
    """
    whole = store.find_embedding(namespace, part.image)
    if whole is None:
        raise embedding_expired(image_id)
    if whole.header.region is not None:
        raise _bad_region("region_of is a region itself; give the content key of the whole image")
    if whole.header.fingerprint != fingerprint:
        raise InvalidArgument(
            "OTHER_MODEL", f"the image was embedded with the model {whole.header.model!r}; name that", field="model"
        )
    x, y, width, height = part.place
    if x + width > whole.header.width or y + height > whole.header.height:
        raise _bad_region(f"the image is {whole.header.width}x{whole.header.height} px")
    return whole.header


def check_size(part: Part, width: int, height: int) -> None:
    """Raises `InvalidArgument` (BAD_REGION) unless a file has the size of the part that it is said to be."""
    if (part.place.width, part.place.height) != (width, height):
        raise _bad_region(f"the file is {width}x{height} px, the region {part.place.width}x{part.place.height}")


def parse_full_size(header: pb.EncodeImageHeader, part: Part | None) -> tuple[int, int] | None:
    """Returns width and height of what a file is said to be a smaller version of: of the picture, or of the part of it.
    None if it is no such.

    Raises:
        InvalidArgument: BAD_SIZE.
    """
    width, height = header.width_px, header.height_px
    if not width and not height:
        return None
    if not width or not height or width * height >= MAX_PIXELS:
        raise _bad_size(f"width_px and height_px belong together, and make at most {MAX_PIXELS - 1} pixels")
    if part is not None and (width, height) != part.place[2:]:
        raise _bad_size(f"the region has {part.place.width}x{part.place.height} px; give these, or neither")
    return width, height


def check_smaller(full: tuple[int, int], width: int, height: int) -> None:
    """Raises `InvalidArgument` (BAD_SIZE) unless a file is not larger than the picture that it is a version of."""
    if width > full[0] or height > full[1]:
        raise _bad_size(f"the file is {width}x{height} px, the picture {full[0]}x{full[1]}")


def _bad_size(said: str) -> InvalidArgument:
    return InvalidArgument("BAD_SIZE", said, field="header.width_px")


def _bad_region(said: str) -> InvalidArgument:
    return InvalidArgument("BAD_REGION", said, field="header.region")
