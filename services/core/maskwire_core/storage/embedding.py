"""Image embeddings: their identity, and their serialized form in the store.

offset  size   content
0       8      b"MASKWIRE"
8       4      format version, little-endian
12      4      length of the header in bytes
16      8      xxh3_64 of the header
24      n      header: JSON, UTF-8 (`Header`)
then           zeros up to a multiple of 64, then the tensors' bytes, each at its offset
"""

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from maskwire_core.errors import CorruptValue
from maskwire_core.masks.geometry import ImageSize, Rectangle
from maskwire_core.storage.codecs import CODECS, encode

VERSION = 2
LAYOUT = "tokens/1"
"""Image tokens as rows; high-resolution features as tokens x patch pixels x channels, patch pixels in the order of
stacked 2x2 transposed convolutions."""
MAX_HEADER_BYTES = 8192
MAX_BYTES = 256 << 20
"""Largest embedding; that of an image at 1024 px has 16 MiB as fp32."""
MAX_VALUES = MAX_BYTES // 4
"""Most values in the tensors of an embedding of any codec."""

_PREFIX = struct.Struct("<8sIIQ")
_MAGIC = b"MASKWIRE"
_ALIGNMENT = 64
MAX_PIXELS = 1 << 31  # of an image; encoders accept a twentieth of it, unless they are told otherwise


@dataclass(frozen=True)
class Region:
    """That an embedding is of a part of an image alone, cut out of it."""

    image: str  # content key of the whole image
    x: int  # left edge of the part in pixels of the image
    y: int  # top edge, likewise
    image_width: int  # width of the whole image in pixels
    image_height: int  # height of the whole image in pixels


def content_key(
    image_sha256: bytes, fingerprint: str, decoder: str, arithmetic: str, codec: str, extent: str = ""
) -> str:
    """The identity of an embedding: 64 hex digits, equal exactly if all that determines its bytes and use is equal.

    Args:
        image_sha256: Digest of the image file.
        fingerprint: Digest of the model's weights and configuration.
        decoder: Digest of the exported decoder. An embedding whose decoder is no longer published is never found.
        arithmetic: Version of the preprocessing, and the encoder's precision.
        codec: How tensors are stored, a key of `codecs.CODECS`.
        extent: Which part of what image a file is, or of how large a picture a smaller version; empty for an image.
    """
    parts = "\0".join((image_sha256.hex(), fingerprint, decoder, arithmetic, codec, *([extent] if extent else [])))
    return hashlib.sha256(parts.encode()).hexdigest()


@dataclass(frozen=True)
class Header:
    """What is known of an embedding without reading its tensors."""

    namespace: str  # tenant that it belongs to
    content_key: str  # see `content_key`
    model: str  # name of the model
    fingerprint: str  # digest of the model's weights and configuration
    decoder: str  # SHA-256 of the exported decoder that reads it, in hex
    height: int  # height of the image, or of its region, in pixels, after EXIF orientation
    width: int  # width in pixels, likewise
    codec: str  # how tensors are stored, a key of `codecs.CODECS`
    created_at: float  # when it was encoded, in seconds since 1970
    stretch: str = "none"  # how the image's samples were mapped to 8 bits: "none", "range" or "percentile"
    layout: str = LAYOUT  # order of the tensors' axes
    # By tensor, {"shape": [...], "parts": {name: [dtype, offset in the payload, bytes]}}.
    tensors: dict[str, Any] = field(default_factory=dict)
    payload_bytes: int = 0  # size of all tensors in bytes
    checksum: str = ""  # xxh3_128 of the payload, in hex
    region: Region | None = None  # the image that it is a region of, and where it lies there; None for an image

    @property
    def size(self) -> ImageSize:
        """Size of the whole image, and the region, if it is one."""
        if self.region is None:
            return ImageSize(self.width, self.height)
        part = Rectangle(self.region.x, self.region.y, self.width, self.height)
        return ImageSize(self.region.image_width, self.region.image_height, part)


@dataclass(frozen=True)
class Embedding:
    """A header, and the tensors by name: fp16 if stored as fp16, otherwise fp32, with axes as `LAYOUT` says; or, if
    stored as klt, int16, planes x rows x columns, which the exported decoder turns back into such values."""

    header: Header
    tensors: Mapping[str, NDArray[Any]]


class StoredEmbedding(NamedTuple):
    """What is known of a stored embedding without reading its tensors."""

    header: Header  # its header
    nbytes: int  # size of the stored value in bytes
    ttl_ms: int  # milliseconds until it expires


def pack(header: Header, tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """Serializes an embedding.

    Args:
        header: Its header; `tensors`, `payload_bytes` and `checksum` are set here.
        tensors: fp32 tensors by name, channels last; for klt, int16, planes x rows x columns.

    Raises:
        NotFinite: A value is NaN or infinite, or too large for the header's codec.
    """
    described: dict[str, Any] = {}
    chunks: list[bytes] = []
    offset = 0
    for name, tensor in tensors.items():
        parts = {}
        for part, array in encode(header.codec, name, tensor).items():
            parts[part] = [array.dtype.str, offset, array.nbytes]
            padding = -array.nbytes % _ALIGNMENT
            chunks += [np.ascontiguousarray(array).tobytes(), bytes(padding)]
            offset += array.nbytes + padding
        described[name] = {"shape": list(tensor.shape), "parts": parts}
    payload = b"".join(chunks)
    filled = asdict(header) | {
        "tensors": described,
        "payload_bytes": len(payload),
        "checksum": xxhash.xxh3_128_hexdigest(payload),
    }
    if header.region is None:
        del filled["region"]  # older versions know no such member
    text = json.dumps(filled).encode()
    prefix = _PREFIX.pack(_MAGIC, VERSION, len(text), xxhash.xxh3_64_intdigest(text))
    padding = -(len(prefix) + len(text)) % _ALIGNMENT
    return b"".join((prefix, text, bytes(padding), payload))


def read_header(value: bytes | memoryview) -> tuple[Header, int]:
    """Parses the header from the first bytes of a stored value (`MAX_HEADER_BYTES` are enough).

    Returns:
        The header, and the offset of the payload.

    Raises:
        CorruptValue: The value is not an embedding of this version, or its header is damaged.
    """
    try:
        magic, version, length, checksum = _PREFIX.unpack_from(value)
        if magic != _MAGIC or version != VERSION:
            raise CorruptValue(f"not an embedding of version {VERSION}")
        end = _PREFIX.size + length
        if end > MAX_HEADER_BYTES:
            raise CorruptValue(f"the header of an embedding has {length} bytes")
        text = bytes(value[_PREFIX.size : end])
        if len(text) != length or xxhash.xxh3_64_intdigest(text) != checksum:
            raise CorruptValue("the header of an embedding is damaged")
        members = json.loads(text)
        header = Header(**members | ({"region": Region(**members["region"])} if "region" in members else {}))
        if header.codec not in CODECS or header.layout != LAYOUT:
            raise CorruptValue(f"unknown codec {header.codec!r} or layout {header.layout!r}")
        _check_values(header)
    except (struct.error, TypeError, ValueError, RecursionError) as error:
        raise CorruptValue(f"the header of an embedding cannot be read: {error}") from error
    return header, end + -end % _ALIGNMENT


def unpack(value: bytes | memoryview) -> Embedding:
    """Parses a stored value and verifies its checksums. Tensors are views of `value` if its codec allows it.

    Raises:
        CorruptValue: The value is not an embedding of this version, or it is truncated or damaged.
    """
    header, payload = _verified(value)
    codec = CODECS[header.codec]
    try:
        tensors = {}
        for name, described in header.tensors.items():
            parts = {
                part: np.frombuffer(payload[offset : offset + nbytes], dtype)
                for part, (dtype, offset, nbytes) in described["parts"].items()
            }
            tensors[name] = codec.decode(name, parts, tuple(described["shape"]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CorruptValue(f"the tensors of an embedding do not fit: {error}") from error
    return Embedding(header, tensors)


def unpack_owned(value: bytes | memoryview, namespace: str, key: str) -> Embedding:
    """As `unpack`, for the embedding with this namespace and content key. Raises `CorruptValue` for another's."""
    embedding = unpack(value)
    check_owner(embedding.header, namespace, key)
    return embedding


def verify_owned(value: bytes | memoryview, namespace: str, key: str) -> Header:
    """Verifies a stored value's checksums, and that it is the embedding with this namespace and content key, without
    decoding its tensors. Raises `CorruptValue` otherwise."""
    header, _ = _verified(value)
    check_owner(header, namespace, key)
    return header


def convert(value: bytes | memoryview, codec: str) -> bytes:
    """Serializes a stored value anew, in another codec.

    Args:
        value: The stored value.
        codec: One of `codecs.CONVERTIBLE`, as its own must be.

    Raises:
        CorruptValue: As `unpack`.
        NotFinite: It has values that are too large for the codec.
    """
    embedding = unpack(value)
    tensors = {name: np.asarray(tensor, np.float32) for name, tensor in embedding.tensors.items()}
    return pack(replace(embedding.header, codec=codec), tensors)


def _verified(value: bytes | memoryview) -> tuple[Header, memoryview]:
    """Returns the header and the payload of a stored value, whose size, checksums and tensors' sizes are right."""
    header, start = read_header(value)
    payload = memoryview(value)[start:]
    if len(payload) != header.payload_bytes:
        raise CorruptValue(f"an embedding has {len(payload)} bytes of tensors instead of {header.payload_bytes}")
    if xxhash.xxh3_128_hexdigest(payload) != header.checksum:
        raise CorruptValue("the tensors of an embedding are damaged")
    try:
        _check_tensors(header)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CorruptValue(f"the tensors of an embedding do not fit: {error}") from error
    return header, payload


def _check_values(header: Header) -> None:
    """Raises `CorruptValue` unless a header has values of the right types: whoever can write to the store wrote it."""
    kinds: dict[str, tuple[type, ...]] = {
        "str": (str,),
        "int": (int,),
        "float": (float, int),
        "dict[str, Any]": (dict,),
    }
    for each in fields(header):
        if each.name == "region":
            continue
        kind = each.type if isinstance(each.type, str) else getattr(each.type, "__name__", "")
        value = getattr(header, each.name)
        if isinstance(value, bool) or not isinstance(value, kinds.get(kind, (dict,))):
            raise CorruptValue(f"the header of an embedding has {each.name} of the wrong type")
    if header.region is not None:
        _check_region(header, header.region)
    if min(header.height, header.width) < 1 or header.height * header.width > MAX_PIXELS:
        raise CorruptValue(f"an embedding of an image of {header.width}x{header.height} pixels")


def _check_region(header: Header, region: Region) -> None:
    sides = (region.x, region.y, region.image_width, region.image_height)
    if not isinstance(region.image, str) or any(type(side) is not int for side in sides):
        raise CorruptValue("the header of an embedding has a region of the wrong type")
    fits = 0 <= region.x <= region.image_width - header.width and 0 <= region.y <= region.image_height - header.height
    if not fits or region.image_width * region.image_height > MAX_PIXELS:
        raise CorruptValue("an embedding of a region that is not within its image")


def _check_tensors(header: Header) -> None:
    """Raises `CorruptValue` unless the tensors have just the parts that their shapes and the codec need, one behind
    another within the payload, and few enough values. So decoding takes no more memory than the codec does for a
    payload of this size, or, where the size of a part depends on its values, for `MAX_VALUES`."""
    end = values = 0
    for name, described in header.tensors.items():
        shape = described["shape"]
        if not (isinstance(shape, list) and shape and all(type(size) is int and size > 0 for size in shape)):
            raise CorruptValue(f"the tensor {name} of an embedding has the shape {shape}")
        values += math.prod(shape)
        if values > MAX_VALUES:
            raise CorruptValue(f"the tensors of an embedding have more than {MAX_VALUES} values")
        expected = CODECS[header.codec].parts(name, tuple(shape))
        if list(described["parts"]) != list(expected):
            raise CorruptValue(f"the tensor {name} of an embedding has other parts than its codec")
        for part, (dtype, offset, nbytes) in described["parts"].items():
            wanted, count = expected[part]
            if count is None:
                count = nbytes if type(nbytes) is int and nbytes >= 0 else -1
            if dtype != wanted or nbytes != count * np.dtype(wanted).itemsize or offset != end:
                raise CorruptValue(f"the tensor {name} of an embedding is not as large as its shape")
            end += nbytes + -nbytes % _ALIGNMENT
    if end != header.payload_bytes:
        raise CorruptValue("the tensors of an embedding are not as large as its payload")


def describe(namespace: str, key: str, start: bytes | None, nbytes: int | None, ttl_ms: int) -> StoredEmbedding | None:
    """Describes a stored embedding; None if it is missing.

    Args:
        namespace: Tenant.
        key: Content key.
        start: First `MAX_HEADER_BYTES` of its value; None if that is of another Redis type.
        nbytes: Size of the value in bytes; 0 if it is missing, None if it is of another Redis type.
        ttl_ms: Milliseconds until it expires.

    Raises:
        CorruptValue: Its header is damaged, its size is wrong, or it is not the embedding with this key.
    """
    if start is None or nbytes is None:
        raise CorruptValue("an embedding is of another Redis type")
    if not nbytes:
        return None
    header, payload_start = read_header(start)
    if payload_start + header.payload_bytes != nbytes:
        raise CorruptValue(f"an embedding has {nbytes} bytes instead of {payload_start + header.payload_bytes}")
    check_owner(header, namespace, key)
    return StoredEmbedding(header, nbytes, ttl_ms)


def check_owner(header: Header, namespace: str, key: str) -> None:
    """Raises `CorruptValue` unless a header is that of the embedding with this namespace and content key."""
    if (header.namespace, header.content_key) != (namespace, key):
        raise CorruptValue("an embedding is stored under another image's key")
