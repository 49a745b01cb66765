"""How much memory each server takes at most: a sum of terms, each of which a setting or a constant bounds.

docs/explanation/security.md lists the terms. The limits of docker-compose.yml and deploy/kubernetes/base are the sums,
which tests/project/test_memory_sums.py holds. What a caller can make larger needs a bound, and a term here.
"""

import math
from dataclasses import dataclass

from maskwire_core.config import (
    MIB,
    DecoderSettings,
    EncoderSettings,
    GatewaySettings,
    ServiceSettings,
    Settings,
    TrackerSettings,
)
from maskwire_core.rpc.message_fields import FIELD_BYTES, MOST_FIELDS
from maskwire_core.rpc.receiving import STRANGERS

_STEP = 256 * MIB
_ENCODER, _DECODER, _GATEWAY = 768 * MIB, 256 * MIB, 128 * MIB  # measured at rest, and rounded up
_TRACKER, _TRACKING = 512 * MIB, 1024 * MIB  # with one model; a frame of 1024 px and what it recalls, estimated
_JSON = 2 * 4 * 16 * MIB
_BESIDE = 192 * MIB  # measured with all attacks of two tenants at once: 93 of freed memory, 63 of pieces, 35 of tables
_READER, _DECODED, _BETWEEN = 64 * MIB, 512 * MIB, 28 * MIB
_DECODING = 128 * MIB


@dataclass(frozen=True)
class Term:
    """A part of a server's memory.

    Attributes:
        what: What it is, in Markdown.
        nbytes: Its largest size, in bytes.
    """

    what: str
    nbytes: int


def call_terms(settings: ServiceSettings) -> list[Term]:
    """What calls of an encoder or a decoder take."""
    largest = settings.max_request_bytes
    return [
        Term(
            "requests that came, those of single calls on their way, and answers until they are read: `call_bytes`",
            settings.call_bytes,
        ),
        Term("one message on its way on each of `max_streams`, of `max_request_bytes`", settings.max_streams * largest),
        Term(f"{STRANGERS} health checks on their way, of `max_request_bytes`", STRANGERS * largest),
        Term(
            f"the message that is being parsed: `max_request_bytes` and {MOST_FIELDS:,} fields",
            largest + MOST_FIELDS * FIELD_BYTES,
        ),
    ]


def encoder_terms(settings: EncoderSettings) -> list[Term]:
    """What an encoder's memory is made of, on a CPU with the demo model; a larger model's weights come on top."""
    readers = settings.readers or 2
    processes = readers + settings.large_readers(readers)
    buffer = max(3 * settings.max_image_pixels, settings.max_image_bytes)
    return [
        Term("the process with the demo model", _ENCODER),
        Term(
            "processes that read files: half as many again as `readers`, at most 4 more, 64 MiB each",
            processes * _READER,
        ),
        Term("files that arrive and wait: `upload_bytes`", settings.upload_bytes),
        Term(
            "decoding large files: `decode_bytes`, and twice that from 4 `readers` on",
            min(2, processes - readers) * settings.decode_bytes,
        ),
        Term("decoding others: 512 MiB for each of `readers`", readers * _DECODED),
        Term(
            "memory shared with each of these processes: 3 bytes for each of `max_image_pixels`, or `max_image_bytes`",
            processes * buffer,
        ),
        Term(
            "images between the stages: 28 MiB for each of `readers` and `writers`",
            (readers + settings.writers) * _BETWEEN,
        ),
        *_kept_terms(settings),
        *call_terms(settings),
    ]


def _kept_terms(settings: EncoderSettings) -> list[Term]:
    if not settings.keep_sources_s or not settings.picture_cache_bytes:
        return []
    return [Term("decoded pictures of which regions are cut: `picture_cache_bytes`", settings.picture_cache_bytes)]


def decoder_terms(settings: DecoderSettings) -> list[Term]:
    """What a decoder's memory is made of."""
    workers = settings.decode_workers
    return [
        Term("the process with one model", _DECODER),
        Term("cached embeddings: `cache_bytes`", settings.cache_bytes),
        Term("logits of objects: `logits_cache_bytes`", settings.logits_cache_bytes),
        Term(
            "masks that calls of GenerateMasks have found, once more in answers, and as bytes: `generated_mask_bytes` "
            "three times",
            3 * settings.generated_mask_bytes,
        ),
        Term("decoding: 128 MiB for each of `workers`", workers * _DECODING),
        Term(
            "a mask as pixels, twice: 2 bytes for each of `max_mask_pixels`, for each of `workers`",
            workers * 2 * settings.max_mask_pixels,
        ),
        *call_terms(settings),
    ]


def tracker_terms(settings: TrackerSettings) -> list[Term]:
    """What a tracker's memory is made of."""
    return [
        Term("the process with one model of 1024 px", _TRACKER),
        Term("state of open tracks, and embeddings of their frames: `tracks_bytes`", settings.tracks_bytes),
        Term("finding objects on a frame: 1,024 MiB for each of `workers`", settings.workers * _TRACKING),
        *call_terms(settings),
    ]


def gateway_terms(settings: GatewaySettings) -> list[Term]:
    """What a gateway's memory is made of."""
    return [
        Term("the process", _GATEWAY),
        Term(
            "bodies of requests, frames of WebSockets, and large answers until they are read: `body_memory_bytes`",
            settings.body_memory_bytes,
        ),
        Term("one JSON of 16 MiB while it is parsed: text and values, of four bytes a character", _JSON),
        Term("what the C library has not given back yet, and what does not count, such as protobuf's tables", _BESIDE),
    ]


def terms_of(settings: Settings) -> list[Term]:
    """What a server's memory is made of."""
    match settings:
        case EncoderSettings():
            return encoder_terms(settings)
        case DecoderSettings():
            return decoder_terms(settings)
        case TrackerSettings():
            return tracker_terms(settings)
        case GatewaySettings():
            return gateway_terms(settings)
    raise TypeError(type(settings).__name__)


def stated_sum(settings: Settings) -> int:
    """The most memory that a server takes, in bytes: the sum of its terms, rounded up to a quarter of a GiB."""
    return math.ceil(sum(term.nbytes for term in terms_of(settings)) / _STEP) * _STEP
