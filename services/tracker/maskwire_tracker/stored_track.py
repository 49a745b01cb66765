"""How a track is stored: what it was opened with (`Description`), and a record for each object and frame.

Records are immutable, so that those which changed since the last write are found by identity.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import xxhash
from maskwire_core.errors import CorruptValue
from numpy.typing import NDArray

from maskwire_tracker.options import TrackOptions
from maskwire_tracker.remembered import Points, Remembered, TrackedObject

_VERSION = 1
_KINDS = {"p": "prompted", "f": "followed", "P": "new_prompted", "F": "new_followed"}
_DIGEST_BYTES = 8

Records = dict[bytes, Remembered]
"""Records by their names in the store: kind, frame and object."""


@dataclass
class Description:
    """A track, besides what is remembered of its objects."""

    model: str  # name of the model
    fingerprint: str  # of the model's image parts; embeddings of frames must have it
    tracker: str  # digest of the exported tracker, or decoder where masks are handed over
    width: int  # of the frames, in pixels
    height: int  # likewise
    clip_id: str = ""  # the clip; empty: frames come on the stream
    upload: str = ""  # the upload that the clip was
    options: TrackOptions = field(default_factory=TrackOptions)
    codec: str = "fp32"  # how embeddings of frames are stored
    hand_over: bool = False  # whether masks are handed over from frame to frame
    kept_frames: int = 8  # how many of the newest frames of a stream can be prompted
    frames: int = 0  # number of frames so far, or of the clip
    followed_to: int | None = None  # the frame that was followed last
    stored_bytes: int = 0  # of the records

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> "Description":
        """The inverse of `dataclasses.asdict`."""
        return cls(**{**described, "options": TrackOptions(**described["options"])})


def records(objects: Mapping[str, TrackedObject]) -> Records:
    """Returns all that is remembered of objects."""
    return {
        _name(letter, frame, name): seen
        for name, tracked in objects.items()
        for letter, kind in _KINDS.items()
        for frame, seen in getattr(tracked, kind).items()
    }


def pack_meta(description: Description, objects: Mapping[str, TrackedObject]) -> bytes:
    """Serializes what names the records of a track, in the order in which frames came: a digest, and JSON."""
    tracked = [
        {
            "name": name,
            "points": [[frame, each.places.tolist(), each.labels.tolist()] for frame, each in known.points.items()],
            "backwards": [[frame, int(backwards)] for frame, backwards in known.backwards.items()],
            **{kind: list(getattr(known, kind)) for kind in _KINDS.values()},
        }
        for name, known in objects.items()
    ]
    return _with_digest(json.dumps({"version": _VERSION, "track": asdict(description), "objects": tracked}).encode())


def read_description(meta: bytes) -> tuple[Description, list[str]]:
    """Returns what a track was opened with, and the names of its objects. Raises `CorruptValue`."""
    description, described = _read(meta)
    return description, [each["name"] for each in described]


def record_names(meta: bytes) -> Iterator[bytes]:
    """Yields the names of a track's records. Raises `CorruptValue`."""
    for each in _read(meta)[1]:
        for letter, kind in _KINDS.items():
            yield from (_name(letter, frame, each["name"]) for frame in each[kind])


def unpack_objects(meta: bytes, packed: Mapping[bytes, bytes]) -> dict[str, TrackedObject]:
    """Restores the objects of a track.

    Args:
        meta: From `pack_meta`.
        packed: Its records by name, as `pack_record` made them.

    Raises:
        CorruptValue: A record is missing or damaged.
    """
    objects = {}
    for each in _read(meta)[1]:
        name = each["name"]
        remembered = {
            kind: {frame: _unpack(packed, _name(letter, frame, name)) for frame in each[kind]}
            for letter, kind in _KINDS.items()
        }
        objects[name] = TrackedObject(
            points={
                frame: Points(np.array(places, np.float32).reshape(-1, 2), np.array(labels, np.int64))
                for frame, places, labels in each["points"]
            },
            backwards={frame: bool(backwards) for frame, backwards in each["backwards"]},
            **remembered,
        )
    return objects


def pack_record(seen: Remembered) -> bytes:
    """Serializes what is remembered of an object on a frame: a digest, a line of JSON, and arrays."""
    arrays = {"pointer": seen.pointer, "logits": seen.logits, "memory": seen.memory}
    shapes = {name: None if array is None else array.shape for name, array in arrays.items()}
    line = json.dumps({"object_score": seen.object_score, **shapes}).encode() + b"\n"
    content = line + b"".join(np.ascontiguousarray(array).tobytes() for array in arrays.values() if array is not None)
    return _with_digest(content)


def unpack_record(packed: bytes) -> Remembered:
    """The inverse of `pack_record`. Raises `CorruptValue`."""
    line, _, rest = _content(packed).partition(b"\n")
    described, position = json.loads(line), 0
    found: dict[str, NDArray[Any] | None] = {}
    for name, kind in (("pointer", np.float32), ("logits", np.float32), ("memory", np.uint16)):
        shape = described[name]
        if shape is None:
            found[name] = None
            continue
        count = int(np.prod(shape))
        found[name] = np.frombuffer(rest, kind, count, position).reshape(shape)
        position += count * np.dtype(kind).itemsize
    return Remembered(object_score=described["object_score"], **found)  # type: ignore[arg-type]


def _with_digest(content: bytes) -> bytes:
    return xxhash.xxh64_digest(content) + content


def _content(packed: bytes) -> bytes:
    """The inverse of `_with_digest`. Raises `CorruptValue`."""
    digest, content = packed[:_DIGEST_BYTES], packed[_DIGEST_BYTES:]
    if xxhash.xxh64_digest(content) != digest:
        raise CorruptValue("a part of a track is damaged")
    return content


def _name(letter: str, frame: int, name: str) -> bytes:
    return f"{letter}/{frame}/{name}".encode()


def _unpack(packed: Mapping[bytes, bytes], name: bytes) -> Remembered:
    if name not in packed:
        raise CorruptValue("a record of a track is missing")
    return unpack_record(packed[name])


def _read(meta: bytes) -> tuple[Description, list[dict[str, Any]]]:
    try:
        described = json.loads(_content(meta))
        if described["version"] != _VERSION or set(described["track"]) != {each.name for each in fields(Description)}:
            raise CorruptValue("a track was written by another version of Maskwire")
        return Description.from_dict(described["track"]), described["objects"]
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptValue(f"a track cannot be read: {error}") from error
