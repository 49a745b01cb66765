"""The file of bearer tokens: who may do what. It holds digests, never a token.

A token is "mw_ID_SECRET". The id is no secret: it finds the entry, and names the token in lists and logs. The secret is
32 random bytes, so a plain SHA-256 of the token is kept: nobody can try 2^256 of them, and a slow hash, which protects
passwords that people choose, would only make every call slower.
"""

import contextlib
import fcntl
import hashlib
import hmac
import json
import logging
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from maskwire_core import names
from maskwire_core.errors import InvalidArgument

log = logging.getLogger(__name__)

Right = Literal["encode", "segment", "read", "delete", "stats"]
RIGHTS: dict[Right, str] = {
    "encode": "embed images",
    "segment": "answer prompts on them, and save logits",
    "read": "ask what is stored of an image",
    "delete": "delete images",
    "stats": "ask how busy an encoder is",
}
ANY_NAMESPACE = "*"

_SECRET_BYTES = 32
_NOBODY = "0" * 64  # compared with where there is no entry, so that it takes as long


class TokenError(Exception):
    """The file cannot be read, or is none of tokens; or what should be put into it is wrong."""


def _namespace(value: str) -> str:
    try:
        return value if value == ANY_NAMESPACE else names.namespace(value)
    except InvalidArgument as error:
        raise ValueError(error.message) from error


class Token(BaseModel):
    """An entry of the file.

    Attributes:
        id: Names the token.
        sha256: Of the whole token, in hex.
        namespaces: Where it is valid; the first is meant where a request names none. "*" is every namespace, and
            "default" where a request names none.
        rights: What may be done there.
        note: For people.
        created_at: When it was made.
        expires_at: When it ends; None: never.
        requests_per_s: Calls and prompts a second, in each server process; None: any number.
        encodes_per_s: Images a second that must be encoded, likewise.
        bytes_per_s: Bytes of image files and requests a second, likewise.
        burst_s: Seconds' worth of each rate that may be used at once.
        max_image_bytes: Largest image file; None: as large as the encoder takes.
        quota_bytes: Embeddings that its namespace may keep; None: what the encoder's setting says, 0: any amount.
        ttl_s: Seconds that an embedding is kept; None: what the encoder's setting says.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[A-Za-z0-9]{1,32}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    namespaces: tuple[Annotated[str, AfterValidator(_namespace)], ...] = Field(min_length=1)
    rights: frozenset[Right]
    note: str = ""
    created_at: AwareDatetime | None = None
    expires_at: AwareDatetime | None = None
    requests_per_s: float | None = Field(default=None, gt=0)
    encodes_per_s: float | None = Field(default=None, gt=0)
    bytes_per_s: float | None = Field(default=None, gt=0)
    burst_s: float = Field(default=5, gt=0)
    max_image_bytes: int | None = Field(default=None, ge=1)
    quota_bytes: int | None = Field(default=None, ge=0)
    ttl_s: int | None = Field(default=None, ge=1)

    @property
    def expired(self) -> bool:
        return self.expires_at is not None and self.expires_at.timestamp() <= time.time()

    def admits_as(self, other: "Token") -> bool:
        """Whether who was let in with this may stay in with the other."""
        return (self.sha256, self.namespaces, self.rights) == (other.sha256, other.namespaces, other.rights)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    tokens: list[Token] = []


class Tokens:
    """The tokens of a file, read again when it changes. A file that has become unreadable changes nothing.

    Raises:
        TokenError: It cannot be read at first.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = _stamp(path)
        self.by_id: Mapping[str, Token] = _by_id(read(path))

    def refresh(self) -> None:
        """Reads the file again if it has changed. Blocks."""
        try:
            stamp = _stamp(self._path)
            if stamp == self._seen:
                return
            self._seen = stamp
            self.by_id = _by_id(read(self._path))
            log.info("%s: %d tokens", self._path, len(self.by_id))
        except TokenError as error:
            log.error("%s; the tokens that were read before stay valid", error)

    def find(self, text: str) -> Token | None:
        """The entry of a token that is valid now. Takes as long for a wrong secret as for an unknown id."""
        parts = text.split("_", 2)
        entry = self.by_id.get(parts[1]) if len(parts) == 3 else None
        equal = hmac.compare_digest(_digest(text), entry.sha256 if entry is not None else _NOBODY)
        return entry if entry is not None and equal and not entry.expired else None


def issue(**fields: object) -> tuple[str, Token]:
    """A new token and its entry, whose other fields are given.

    Raises:
        TokenError: A field is wrong.
    """
    name = secrets.token_hex(6)
    text = f"mw_{name}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    try:
        return text, Token.model_validate({**fields, "id": name, "sha256": _digest(text)})
    except ValidationError as error:
        raise TokenError(_told(error)) from error


def read(path: Path) -> list[Token]:
    """The entries of a file.

    Raises:
        TokenError: It cannot be read.
    """
    try:
        return _File.model_validate_json(path.read_bytes()).tokens
    except OSError as error:
        raise TokenError(
            f"cannot read the tokens in {path}: {error.strerror}; 'maskwire token new' makes one, and --tokens "
            "or MASKWIRE_TOKENS names another one"
        ) from error
    except ValidationError as error:
        raise TokenError(f"{path} is no file of tokens: {_told(error)}") from error


def change(path: Path, action: Callable[[list[Token]], list[Token]]) -> None:
    """Replaces a file's entries at once by what `action` makes of them. One process at a time does.

    Raises:
        TokenError: The file cannot be read or written.
    """
    try:
        with _locked(path):
            tokens = action(read(path) if path.exists() else [])
            _write(path, _File(tokens=tokens))
    except OSError as error:
        raise TokenError(f"cannot write {path}: {error.strerror}") from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with open(path.with_name(f".{path.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(path: Path, content: _File) -> None:
    """Only its owner may read it: digests give no token away, but who may do what is nobody else's business."""
    text = json.dumps(content.model_dump(mode="json", exclude_none=True), indent=2) + "\n"
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}", delete=False) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(FileNotFoundError):
        os.chmod(file.name, path.stat().st_mode & 0o777)
    os.replace(file.name, path)


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()  # of what a link points to: Kubernetes replaces links
    except OSError as error:
        raise TokenError(
            f"cannot read the tokens in {path}: {error.strerror}; 'maskwire token new' makes one, and --tokens "
            "or MASKWIRE_TOKENS names another one"
        ) from error
    return found.st_mtime_ns, found.st_size, found.st_ino


def _by_id(tokens: list[Token]) -> dict[str, Token]:
    return {token.id: token for token in tokens}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _told(error: ValidationError) -> str:
    """What is wrong and where, without the values."""
    return "; ".join(f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}" for wrong in error.errors())
