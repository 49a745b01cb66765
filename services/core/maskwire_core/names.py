"""Checks of names that callers choose, and new image IDs."""

import re
import secrets
import unicodedata

from maskwire_core.errors import InvalidArgument

DEFAULT_NAMESPACE = "default"
MAX_REQUEST_ID = 128
"""Characters of what callers name a request, on streams and in the header x-request-id."""
_NAMESPACE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CONTENT_KEY = re.compile(r"[0-9a-f]{64}")
_MAX_IMAGE_ID = 256
_MAX_CALL_ID = 64


def namespace(value: str) -> str:
    """Returns a namespace, "default" if it is empty. Raises `InvalidArgument` (BAD_NAMESPACE) if it is not valid."""
    if not value:
        return DEFAULT_NAMESPACE
    if not _NAMESPACE.fullmatch(value):
        raise InvalidArgument(
            "BAD_NAMESPACE", "a namespace is 1 to 64 letters, digits, '.', '_' or '-'", field="namespace"
        )
    return value


def image_id(value: str) -> str:
    """Returns an image ID. Raises `InvalidArgument` (BAD_IMAGE_ID) if it is not valid."""
    if not value:
        raise InvalidArgument(
            "BAD_IMAGE_ID", "image_id is empty; give the name that the image was embedded under", field="image_id"
        )
    _check(value, "BAD_IMAGE_ID", "image_id")
    return value


def prefix(value: str) -> str:
    """Returns a prefix of image IDs, which may be empty. Raises `InvalidArgument` (BAD_PREFIX) if it is not valid."""
    _check(value, "BAD_PREFIX", "prefix")
    return value


def _check(value: str, reason: str, field: str) -> None:
    if len(value) > _MAX_IMAGE_ID or any(unicodedata.category(character) == "Cc" for character in value):
        raise InvalidArgument(
            reason, f"{field} is longer than {_MAX_IMAGE_ID} characters or has control characters", field=field
        )


def call_id(value: str) -> str:
    """Returns what tells calls apart, or "". Raises `InvalidArgument` (BAD_CALL_ID) if it is too long."""
    if len(value) > _MAX_CALL_ID:
        raise InvalidArgument("BAD_CALL_ID", f"call_id is longer than {_MAX_CALL_ID} characters", field="call_id")
    return value


def request_id(value: str) -> str:
    """Returns a name of a request on a stream, or "". Raises `InvalidArgument` (BAD_REQUEST_ID) if it is too long."""
    if len(value) > MAX_REQUEST_ID:
        raise InvalidArgument(
            "BAD_REQUEST_ID",
            f"request_id is longer than {MAX_REQUEST_ID} characters, the first of which the answer repeats",
            field="request_id",
        )
    return value


def content_key(value: str, field: str = "content_key") -> str:
    """Returns a content key, or "" for none. Raises `InvalidArgument` (BAD_CONTENT_KEY) if it is not valid."""
    if value and not _CONTENT_KEY.fullmatch(value):
        raise InvalidArgument("BAD_CONTENT_KEY", f"{field} must be as an encoder gave it", field=field)
    return value


def decoder(value: str) -> str:
    """Returns the digest of an exported decoder. Raises `InvalidArgument` (BAD_DIGEST) if it is not valid."""
    if not _CONTENT_KEY.fullmatch(value):
        raise InvalidArgument(
            "BAD_DIGEST", "decoder must be 64 hex digits, as an embedding's header has them", field="decoder"
        )
    return value


def issue_image_id() -> str:
    """Makes an ID for an image whose caller gave none; it cannot be guessed."""
    return f"img_{secrets.token_urlsafe(16)}"


def issue_clip_id() -> str:
    """Likewise for a clip."""
    return f"clip_{secrets.token_urlsafe(16)}"


def issue_track_id() -> str:
    """Likewise for a track."""
    return f"track_{secrets.token_urlsafe(16)}"
