"""Keyword arguments of calls that say which image is meant, and how its picture is read."""

from typing import Literal, NamedTuple, TypedDict

from maskwire.arguments import is_finite
from maskwire.embedded_image import EmbeddedImage
from maskwire.errors import InvalidRequest
from maskwire.output_options import OutputArguments
from maskwire.pictures import Channels, Stretch
from maskwire.regions import Place, Region, check_region
from maskwire.sources import DEFAULT_READING, ImageLike, Reading

_MAX_WAIT_S = 60


class ReadingArguments(TypedDict, total=False):
    """Keyword arguments that say how to read a picture.

    Attributes:
        channels: Order of an array's colour channels: "rgb" unless it is "bgr", as OpenCV's imread returns it.
        stretch: How samples are mapped to 8 bits. "range" maps the lowest sample to black and the highest to white,
            "percentile" the 1st percentile and the 99th, and "none" the limits of the sample type. "auto", the default,
            is "range" for pictures of more than 8 bits that stay below a quarter of their type's range, else "none".
    """

    channels: Channels
    stretch: Stretch


class EmbedArguments(ReadingArguments, total=False):
    """Keyword arguments that say how to embed a picture.

    Attributes:
        model: Name of the model; empty for the server's default.
        bulk: Low priority: interactive images go first.
        tiles: Also embed the tiles in which `everything` looks at a large picture with `tiles=True`, with low priority;
            False. Those that are stored are not encoded again.
        keep_source: Have the encoder keep the picture's file, too, if it was started with `--keep-sources-s`: whoever
            knows the image's name alone can then ask for regions of it; False.
    """

    model: str
    bulk: bool
    tiles: bool
    keep_source: bool


class ImageArguments(ReadingArguments, total=False):
    """Keyword arguments that say which image is meant, beside the image itself.

    Attributes:
        image_id: Name of a stored image; together with a picture, the name to store it under.
        model: Name of the model that must have embedded the image. A picture is embedded with it; for a stored
            image of another model an error is raised. Empty for the default model, or any for a stored image.
        wait_s: How long to wait for an image that another caller is embedding, in seconds, at most 60.
        channels: Order of an array's colour channels. Use "bgr" for what OpenCV's imread returns.
        stretch: How samples are mapped to 8 bits; see `embed`.
        region: The part of the image to look at, (x_min, y_min, x_max, y_max) in whole pixels: it is cut out and
            embedded at the model's full resolution. Prompts must lie in it; they and the masks are in pixels of the
            whole image all the same. "auto", for `segment`, `segment_objects` and sessions: a square for each prompt,
            of whose side the object takes a third to a half: around its box or its mask; else clicks are answered from
            near by first, and from farther away until the mask lies within. None: the whole image.
    """

    image_id: str | None
    model: str
    wait_s: float
    region: Region | None


class SegmentArguments(ImageArguments, OutputArguments, total=False):
    """`ImageArguments` and `OutputArguments`."""


class ManyArguments(ReadingArguments, OutputArguments, total=False):
    """Keyword arguments that hold for many images.

    Attributes:
        model: Name of the model that must have embedded the images; see `segment`.
    """

    model: str


def reading(arguments: ReadingArguments) -> Reading:
    """How to read a picture, with the defaults of what is not given."""
    return Reading(arguments.get("channels", "rgb"), arguments.get("stretch", "auto"))


class AskedImage(NamedTuple):
    """An image as a call asks for it; see `ImageArguments`."""

    image: ImageLike | EmbeddedImage | None
    image_id: str | None = None
    model: str = ""
    wait_ms: int = 0
    reading: Reading = DEFAULT_READING
    region: Literal["auto"] | Place | None = None

    @classmethod
    def of(cls, image: ImageLike | EmbeddedImage | None, arguments: ImageArguments) -> "AskedImage":
        """Checks and converts the arguments of a call."""
        waiting_ms, region = _wait_ms(arguments.get("wait_s", 0)), check_region(arguments.get("region"))
        return cls(image, arguments.get("image_id"), arguments.get("model", ""), waiting_ms, reading(arguments), region)


def _wait_ms(wait_s: float) -> int:
    """Checks how long to wait for an image, and converts it to milliseconds.

    Raises:
        InvalidRequest: It is not between 0 and 60 s.
    """
    if not is_finite(wait_s) or not 0 <= wait_s <= _MAX_WAIT_S:
        raise InvalidRequest(f"wait_s is {wait_s!r}; give 0 to {_MAX_WAIT_S}", "BAD_WAIT", "wait_s")
    return int(wait_s * 1000)
