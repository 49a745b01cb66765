"""What is known of an image that is stored."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from maskwire.answered_size import check_size
from maskwire.errors import bad_answer
from maskwire.pictures import Stretch
from maskwire.sources import stretch_of
from maskwire.v1 import decoder_pb2, encoder_pb2, types_pb2


@dataclass(frozen=True)
class EmbeddedImage:
    """A stored image.

    Attributes:
        image_id: Name of the image.
        width: Width in pixels, with EXIF orientation applied.
        height: Height in pixels, with EXIF orientation applied.
        model: Name of the model that embedded it.
        content_key: Digest of the file, the model and the preprocessing, which identifies the embedding.
        cached: Whether the embedding was stored already, so that no encode was needed. True in results of `get`.
        stored_bytes: Size of the stored embedding.
        stretch: How samples were mapped to 8 bits: none, range or percentile.
        expires_at: Time at which it leaves the store, in UTC.
        timings: Duration of each stage in milliseconds.
        region: The part of the image that was embedded, as x_min, y_min, x_max, y_max in pixels; None for all of it.
    """

    image_id: str
    width: int
    height: int
    model: str
    content_key: str
    cached: bool
    stored_bytes: int
    expires_at: datetime
    timings: dict[str, float] = field(default_factory=dict, compare=False, repr=False)
    stretch: Stretch = "none"
    region: tuple[int, int, int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.width, self.height

    @classmethod
    def from_messages(
        cls, info: types_pb2.ImageInfo, cached: bool = True, timings: encoder_pb2.EncodeTimings | None = None
    ) -> "EmbeddedImage":
        """Converts the messages of a response.

        Raises:
            MaskwireError: BAD_ANSWER.
        """
        try:
            expires_at = info.expires_at.ToDatetime(tzinfo=UTC)
        except (ValueError, OverflowError) as error:
            raise bad_answer(f"an image expires at no time that there is: {error}") from error
        width, height = check_size(info.width_px, info.height_px)
        return cls(
            image_id=info.image_id,
            width=width,
            height=height,
            model=info.model,
            content_key=info.content_key,
            cached=cached,
            stored_bytes=info.stored_bytes,
            expires_at=expires_at,
            timings=milliseconds(timings) if timings is not None else {},
            stretch=stretch_of(info.stretch),
            region=place_of(info),
        )


def place_of(image: types_pb2.ImageInfo | decoder_pb2.SegmentedImage) -> tuple[int, int, int, int] | None:
    """Returns the region that an answer is of; None for a whole image. Raises `MaskwireError` (BAD_ANSWER)."""
    if not image.HasField("region"):
        return None
    box = image.region
    sides = box.x_min_px, box.y_min_px, box.x_max_px, box.y_max_px
    if not all(side.is_integer() for side in sides):
        raise bad_answer("a region is not of whole pixels")
    left, top, right, bottom = map(int, sides)
    return left, top, right, bottom


def milliseconds(timings: Any) -> dict[str, float]:
    """Converts a timings message to {"decode_ms": 12.3, ...}, without the stages that did not run."""
    return {
        descriptor.name: round(float(value), 3)
        for descriptor, value in timings.ListFields()
        if descriptor.name.endswith("_ms")
    }
