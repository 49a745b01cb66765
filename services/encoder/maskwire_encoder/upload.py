"""Values that pass between the stages of an upload."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from maskwire.pictures import Stretch
from maskwire.v1 import types_pb2
from maskwire_core.errors import InvalidArgument
from maskwire_core.scheduling.scheduler import Demand
from maskwire_core.storage.embedding import StoredEmbedding

from maskwire_encoder.regions import Part

if TYPE_CHECKING:
    from maskwire_encoder.backends.model import Model  # which takes torch along

STRETCHES: dict[types_pb2.Stretch.ValueType, Stretch] = {
    types_pb2.STRETCH_UNSPECIFIED: "auto",
    types_pb2.STRETCH_AUTO: "auto",
    types_pb2.STRETCH_NONE: "none",
    types_pb2.STRETCH_RANGE: "range",
    types_pb2.STRETCH_PERCENTILE: "percentile",
}
CODEC_NAMES = {types_pb2.DATA_TYPE_FP16: "fp16", types_pb2.DATA_TYPE_FP32: "fp32"}
_STRETCH_VALUES: dict[str, types_pb2.Stretch.ValueType] = {name: value for value, name in STRETCHES.items()}


@dataclass(frozen=True)
class Upload:
    """A checked `EncodeImageHeader`."""

    namespace: str  # the tenant's namespace
    image_id: str  # image ID; issued here if the caller gave none
    sha256: bytes  # SHA-256 of the image file
    size_bytes: int  # size of the image file
    model: "Model"  # the model that encodes the image
    key: str  # content key of the embedding
    stretch: Stretch  # how samples of more than 8 bits are mapped to 8 bits
    is_frame: bool  # whether it is resized as a frame of a video
    codec: str  # how the embedding is stored, a key of `codecs.CODECS`
    demand: Demand  # who wants the image encoded, and how soon
    goes_cold: bool  # whether it may outlive the store's memory
    ttl_s: int  # seconds until the embedding expires
    part: Part | None  # the part of an image that the file is, if it is no image
    quota_bytes: int  # bytes that the namespace may store; 0 for no quota
    received_at: float  # `time.perf_counter()` when the header was received

    @property
    def flight(self) -> tuple[str, str]:
        """Key under which concurrent uploads share one encode."""
        return self.namespace, self.key


def digest_mismatch() -> InvalidArgument:
    """The error of an upload whose bytes are not those of its header."""
    return InvalidArgument(
        "DIGEST_MISMATCH", "the bytes received are not those whose size and SHA-256 the header gave", field="chunk"
    )


def describe(stored: StoredEmbedding, image_id: str, ttl_ms: int) -> types_pb2.ImageInfo:
    """Describes an image whose name or embedding expires in `ttl_ms` milliseconds, whichever is first."""
    header = stored.header
    width, height, region = header.size
    info = types_pb2.ImageInfo(
        image_id=image_id,
        namespace=header.namespace,
        height_px=height,
        width_px=width,
        region=None if region is None else region.message(),
        model=header.model,
        model_fingerprint=header.fingerprint,
        content_key=header.content_key,
        stored_bytes=stored.nbytes,
        stretch=_STRETCH_VALUES.get(header.stretch, types_pb2.STRETCH_NONE),
    )
    info.expires_at.FromMilliseconds(int(time.time() * 1000) + ttl_ms)
    return info
