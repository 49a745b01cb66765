"""Uploads: their headers, checked, and what is said of the images."""

import asyncio
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from maskwire.model_names import canonical
from maskwire.pictures import Stretch
from maskwire.pictures.formats import EMPTY
from maskwire.suggest import model_not_served
from maskwire.v1 import encoder_pb2 as pb
from maskwire.v1 import types_pb2
from maskwire_core import names
from maskwire_core.call_context import current
from maskwire_core.config import EncoderSettings
from maskwire_core.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from maskwire_core.scheduling.fair_queue import Requester
from maskwire_core.scheduling.scheduler import Demand
from maskwire_core.storage.embedding import StoredEmbedding, content_key
from maskwire_core.telemetry import logs

from maskwire_encoder.regions import Part, parse_full_size, parse_part

if TYPE_CHECKING:
    from maskwire_encoder.backends.model import Model  # which takes torch along

_STRETCHES: dict[types_pb2.Stretch.ValueType, Stretch] = {
    types_pb2.STRETCH_UNSPECIFIED: "auto",
    types_pb2.STRETCH_AUTO: "auto",
    types_pb2.STRETCH_NONE: "none",
    types_pb2.STRETCH_RANGE: "range",
    types_pb2.STRETCH_PERCENTILE: "percentile",
}
_CODECS = {types_pb2.DATA_TYPE_FP16: "fp16", types_pb2.DATA_TYPE_FP32: "fp32"}
_STRETCH_VALUES: dict[str, types_pb2.Stretch.ValueType] = {name: value for value, name in _STRETCHES.items()}


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
    part: Part | None  # the part of an image that the file shows; None for a whole image
    full_size: tuple[int, int] | None  # size of the picture or part of which the file is a smaller version, else None
    quota_bytes: int  # bytes that the namespace may store; 0 for no quota
    received_at: float  # `time.perf_counter()` when the header was received
    keep_s: int = 0  # seconds for which the file is kept; 0: it is not
    from_source: bool = False  # whether it is cut from the kept file of the image that it is a part of

    @property
    def flight(self) -> tuple[str, str]:
        """Key under which concurrent uploads share one encode."""
        return self.namespace, self.key


def accept(
    header: pb.EncodeImageHeader,
    models: Mapping[str, "Model"],
    settings: EncoderSettings,
    caller: str,
    time_left_s: float | None,
) -> Upload:
    """Checks the header of an upload.

    Args:
        header: The header.
        models: The models that are served, by name, the default one first.
        settings: Limits, codec and time to live.
        caller: The caller's address; callers take turns.
        time_left_s: Seconds until the call's deadline; None if it has none.

    Raises:
        InvalidArgument: A field is wrong.
        NotFound: The model is not served here.
        FailedPrecondition: The file is to be kept, and this encoder keeps none.
        PermissionDenied: The namespace belongs to another tenant.
        ResourceExhausted: The file is too large.
    """
    received_at = time.perf_counter()
    model = models.get(canonical(header.model)) if header.model else next(iter(models.values()))
    if model is None:
        raise NotFound("MODEL_NOT_FOUND", model_not_served(header.model, models), field="model")
    part = parse_part(header)
    keep_s = _keep_s(header, part, settings)
    if not header.from_source:
        _check_file(header, settings)
    stretch = _STRETCHES.get(header.stretch)
    if stretch is None:
        raise InvalidArgument("BAD_STRETCH", f"{header.stretch} is no Stretch", field="header.stretch")
    if header.resize not in pb.Resize.values():
        raise InvalidArgument("BAD_RESIZE", f"{header.resize} is no Resize", field="header.resize")
    is_frame, codec = header.resize == pb.RESIZE_VIDEO_FRAME, _codec(model, header.stored_as)
    full_size = parse_full_size(header, part)
    image_id = names.image_id(header.image_id) if header.image_id else "" if part else names.issue_image_id()
    namespace = current().caller.writing(header.namespace)
    logs.bind(namespace, image_id)
    if header.priority not in pb.Priority.values():
        raise InvalidArgument("BAD_PRIORITY", f"{header.priority} is no Priority", field="header.priority")
    token = current().caller.token
    ttl_s = token.ttl_s or settings.ttl_s
    deadline = math.inf if time_left_s is None else asyncio.get_running_loop().time() + time_left_s
    return Upload(
        namespace,
        image_id,
        header.sha256,
        header.size_bytes,
        model,
        content_key(
            # The picture that a region is cut from is known by its own key, which a file's digest never is.
            bytes.fromhex(part.image) if header.from_source and part else header.sha256,
            model.fingerprint,
            model.decoder.digest,
            model.arithmetic_of(stretch, is_frame),
            codec,
            part.identity if part else "{}x{}".format(*full_size) if full_size else "",
        ),
        stretch,
        is_frame,
        codec,
        Demand(Requester(namespace, caller), header.priority == pb.PRIORITY_BULK, deadline),
        goes_cold=not is_frame and part is None and not 0 < header.ttl_s < ttl_s,
        ttl_s=min(header.ttl_s or ttl_s, ttl_s),
        part=part,
        full_size=full_size,
        quota_bytes=settings.quota_bytes if token.quota_bytes is None else token.quota_bytes,
        received_at=received_at,
        keep_s=min(keep_s, header.ttl_s or ttl_s, ttl_s),
        from_source=header.from_source,
    )


def _check_file(header: pb.EncodeImageHeader, settings: EncoderSettings) -> None:
    """Checks digest and size of the file that follows. Raises BAD_DIGEST, EMPTY_IMAGE or IMAGE_TOO_LARGE."""
    if len(header.sha256) != 32:
        raise InvalidArgument("BAD_DIGEST", "sha256 must be the 32 bytes of the file's SHA-256", field="header.sha256")
    if not header.size_bytes:
        raise InvalidArgument("EMPTY_IMAGE", EMPTY, field="image")
    most_bytes = min(settings.max_image_bytes, current().caller.token.max_image_bytes or settings.max_image_bytes)
    if header.size_bytes > most_bytes:
        raise ResourceExhausted(
            "IMAGE_TOO_LARGE",
            f"the file has {header.size_bytes} bytes; at most {most_bytes} are accepted",
            field="image",
        )


def _keep_s(header: pb.EncodeImageHeader, part: Part | None, settings: EncoderSettings) -> int:
    """Returns for how many seconds the file is to be kept; 0: not at all.

    Raises:
        InvalidArgument: BAD_SOURCE.
        FailedPrecondition: SOURCES_NOT_KEPT.
    """
    if header.from_source and (part is None or header.sha256 or header.size_bytes or header.width_px or header.stretch):
        raise InvalidArgument(
            "BAD_SOURCE",
            "it is for a region, which is cut from the kept file: give region and region_of, and leave sha256, "
            "size_bytes, width_px and stretch out",
            field="header.from_source",
        )
    if not header.keep_source:
        return 0
    if part is not None or header.width_px or header.from_source:
        raise InvalidArgument(
            "BAD_SOURCE",
            "regions are cut from whole pictures at full size; leave it out for regions and smaller versions",
            field="header.keep_source",
        )
    if not settings.keep_sources_s:
        raise FailedPrecondition(
            "SOURCES_NOT_KEPT",
            "this encoder keeps no files; leave keep_source out and send the parts for regions, or start it with "
            "--keep-sources-s",
            field="header.keep_source",
        )
    return settings.keep_sources_s


def _codec(model: "Model", wanted: types_pb2.DataType.ValueType) -> str:
    """Returns the codec of an embedding, a key of `codecs.CODECS`.

    Raises:
        InvalidArgument: BAD_DATA_TYPE.
    """
    field = "header.stored_as"
    if wanted == types_pb2.DATA_TYPE_UNSPECIFIED:
        return model.store_codec
    codec = _CODECS.get(wanted)
    if codec is None:
        raise InvalidArgument("BAD_DATA_TYPE", f"{wanted} is no DataType", field=field)
    if codec == "fp32" and model.rounds_to_fp16:
        said = "this encoder's device rounds embeddings to fp16; ask one that was started with --store-codec fp32"
        raise InvalidArgument("BAD_DATA_TYPE", said, field=field)
    return codec


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
