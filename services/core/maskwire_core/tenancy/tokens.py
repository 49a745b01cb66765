"""The tokens file: who may do what. It holds digests of bearer tokens, never a token.

A token is "mw_ID_SECRET". The ID is not secret: it finds the token's entry, and identifies the token in lists and logs.
The secret is 32 random bytes, so a plain SHA-256 of the token is enough: nobody can try 2^256 secrets. A slow hash,
which protects passwords that people choose, would only slow down every call.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from maskwire_core import names
from maskwire_core.errors import InvalidArgument

Right = Literal["encode", "segment", "read", "delete", "stats"]
"""What a token can allow: embedding images, segmenting them (and saving logits), looking them up, deleting them, and
asking for an encoder's load."""
RIGHTS: tuple[Right, ...] = get_args(Right)
ANY_NAMESPACE = "*"

_SECRET_BYTES = 32


class TokenError(Exception):
    """The tokens file cannot be read or written, or a token's fields are invalid."""


def _namespace(value: str) -> str:
    try:
        return value if value == ANY_NAMESPACE else names.namespace(value)
    except InvalidArgument as error:
        raise ValueError(error.message) from error


class Token(BaseModel):
    """A token's entry in the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[A-Za-z0-9]{1,32}$")  # identifies the token
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")  # SHA-256 of the whole token, in hex
    # Namespaces in which the token is valid; the first is used if a request names none. "*" stands for all namespaces,
    # with "default" as the first.
    namespaces: tuple[Annotated[str, AfterValidator(_namespace)], ...] = Field(min_length=1)
    rights: frozenset[Right]  # what the token allows in these namespaces
    note: str = ""  # comment for people
    created_at: AwareDatetime | None = None  # when the token was issued
    expires_at: AwareDatetime | None = None  # when the token expires; None if it never does
    # Rates in each server process; None for no limit.
    requests_per_s: float | None = Field(default=None, gt=0)  # calls and prompts per second
    encodes_per_s: float | None = Field(default=None, gt=0)  # images to encode per second
    bytes_per_s: float | None = Field(default=None, gt=0)  # bytes of image files and requests per second
    burst_s: float = Field(default=5, gt=0)  # seconds' worth of each rate that may be used at once
    max_tracks: int | None = Field(default=None, ge=1)  # tracks open at once in each tracker; None for no limit
    # Where these are None, the encoder's and the tracker's settings apply.
    max_image_bytes: int | None = Field(default=None, ge=1)  # largest image file in bytes
    quota_bytes: int | None = Field(default=None, ge=0)  # bytes of embeddings that its namespace may store; 0: no quota
    clips_bytes: int | None = Field(default=None, ge=1)  # bytes of clips that its namespace may store
    ttl_s: int | None = Field(default=None, ge=1)  # seconds for which embeddings are kept

    @property
    def expired(self) -> bool:
        """Whether the token has expired."""
        return self.expires_at is not None and self.expires_at.timestamp() <= time.time()

    def admits_as(self, other: "Token") -> bool:
        """Whether calls that were authorized with this entry may go on after `other` has replaced it."""
        return (self.sha256, self.namespaces, self.rights) == (other.sha256, other.namespaces, other.rights)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    tokens: list[Token] = []


def issue(**fields: object) -> tuple[str, Token]:
    """Makes a new token. Returns the token and its entry.

    Args:
        fields: Fields of `Token` other than `id` and `sha256`.

    Raises:
        TokenError: A field is invalid.
    """
    name = secrets.token_hex(6)
    text = f"mw_{name}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    try:
        return text, Token.model_validate({**fields, "id": name, "sha256": digest(text)})
    except ValidationError as error:
        raise TokenError(_described(error)) from error


def read_tokens(path: Path) -> list[Token]:
    """Reads the entries of a tokens file.

    Raises:
        TokenError: The file cannot be read, or it is not a tokens file.
    """
    try:
        return _File.model_validate_json(path.read_bytes()).tokens
    except OSError as error:
        raise TokenError(
            f"cannot read the tokens in {path}: {error.strerror}; 'maskwire token new' makes one, and --tokens or "
            "MASKWIRE_TOKENS names another one"
        ) from error
    except ValidationError as error:
        raise TokenError(f"{path} is not a tokens file: {_described(error)}") from error


def change_tokens(path: Path, action: Callable[[list[Token]], list[Token]]) -> None:
    """Replaces the entries of a tokens file atomically. The file is locked meanwhile, and created if it is missing.

    Args:
        path: Path of the tokens file.
        action: Given the entries, returns those that replace them.

    Raises:
        TokenError: The file cannot be read or written.
    """
    try:
        with open(path.with_name(f".{path.name}.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            tokens = action(read_tokens(path) if path.exists() else [])
            _write(path, _File(tokens=tokens))
    except OSError as error:
        raise TokenError(f"cannot write {path}: {error.strerror}") from error


def _write(path: Path, content: _File) -> None:
    """Writes the file atomically. Only its owner can read a new one: digests reveal no token, but entries tell who may
    do what."""
    text = json.dumps(content.model_dump(mode="json", exclude_none=True), indent=2) + "\n"
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}", delete=False) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(FileNotFoundError):
        os.chmod(file.name, path.stat().st_mode & 0o777)
    os.replace(file.name, path)


def digest(text: str) -> str:
    """SHA-256 of a token, in hex."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _described(error: ValidationError) -> str:
    """Says which fields are invalid and why, without their values."""
    return "; ".join(f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}" for wrong in error.errors())
