"""The models that exist: published checkpoints, models that a user added, and the demo model.

The models folder (setting `models`, MASKWIRE_MODELS) holds NAME.pt for a published model, and NAME.json for an added
one: the paths of its configuration and checkpoint, and the checkpoint's digest.
"""

import hashlib
import json
import re
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

from maskwire.model_names import canonical

DEMO = "demo"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


class ModelError(Exception):
    """A model cannot be obtained or served; the message names the file and the remedy."""


@dataclass(frozen=True)
class PublishedModel:
    """A checkpoint that the SAM 2 authors published."""

    name: str  # its file name without suffix
    config: str  # its configuration in the sam2 package
    url: str  # address of the file
    sha256: str  # SHA-256 of the file, in hex
    size_bytes: int | None  # size of the file in bytes; None if unknown


def _published(family: str, size: str, short: str, size_bytes: int | None, sha256: str) -> PublishedModel:
    folder = {"sam2.1": "092824", "sam2": "072824"}[family]
    name = f"{family}_hiera_{size}"
    url = f"https://dl.fbaipublicfiles.com/segment_anything_2/{folder}/{name}.pt"
    return PublishedModel(name, f"configs/{family}/{family}_hiera_{short}.yaml", url, sha256, size_bytes)


_PUBLISHED = (
    ("sam2.1", "tiny", "t", 156_008_466, "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69"),
    ("sam2.1", "small", "s", 184_416_285, "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38"),
    ("sam2.1", "base_plus", "b+", 323_606_802, "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5"),
    ("sam2.1", "large", "l", 898_083_611, "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318"),
    ("sam2", "tiny", "t", None, "65b50056e05bcb13694174f51bb6da89c894b57b75ccdf0ba6352c597c5d1125"),
    ("sam2", "small", "s", None, "95949964d4e548409021d47b22712d5f1abf2564cc0c3c765ba599a24ac7dce3"),
    ("sam2", "base_plus", "b+", None, "d0bb7f236400a49669ffdd1be617959a8b1d1065081789d7bbff88eded3a8071"),
    ("sam2", "large", "l", None, "7442e4e9b732a508f80e141e7c2913437a3610ee0c77381a66658c3a445df87b"),
)
PUBLISHED = {model.name: model for model in (_published(*row) for row in _PUBLISHED)}


@dataclass(frozen=True)
class AddedModel:
    """A model that a user added."""

    name: str  # name under which it is served
    config: str  # path of a YAML file, or name of a configuration in the sam2 package
    checkpoint: str  # path of a .pt or .safetensors file
    sha256: str  # SHA-256 of the checkpoint when it was added, in hex
    url: str | None = None  # address that the checkpoint is downloaded from; None if the file is the user's own
    size_bytes: ClassVar[None] = None  # unknown; as of a `PublishedModel`


def describe(name: str, config: str, checkpoint: Path) -> AddedModel:
    """Describes a user's model, whose checkpoint is a file, for `add`.

    Args:
        name: Name under which it will be served.
        config: Path of a YAML file, or name of a configuration in the sam2 package.
        checkpoint: Path of a .pt or .safetensors file.

    Raises:
        ModelError: The name is taken or not allowed, or the checkpoint is missing or obviously not a checkpoint.
    """
    _check_name(name)
    check_file(checkpoint)
    return AddedModel(name, _resolved(config), str(checkpoint.resolve()), _digest(checkpoint))


def describe_remote(name: str, config: str, url: str, sha256: str, folder: Path) -> AddedModel:
    """Describes a user's model, whose checkpoint is downloaded into the models folder, for `add`.

    Args:
        name: Name under which it will be served.
        config: Path of a YAML file, or name of a configuration in the sam2 package.
        url: Address of a .pt or .safetensors file.
        sha256: The file's SHA-256, in hex.
        folder: The models folder.

    Raises:
        ModelError: The name is taken or not allowed, or the address or digest is none.
    """
    _check_name(name)
    suffix = Path(urlsplit(url).path).suffix
    if suffix not in (".pt", ".pth", ".safetensors"):
        raise ModelError(f"{url} does not name a checkpoint: its path must end with .pt, .pth or .safetensors")
    if not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise ModelError(f"--sha256 {sha256!r} is not 64 hexadecimal digits; 'sha256sum FILE' prints them")
    return AddedModel(name, _resolved(config), str(folder.resolve() / f"{name}{suffix}"), sha256.lower(), url)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or canonical(name) in PUBLISHED or name == DEMO:
        raise ModelError(
            f"{name!r} cannot be a model's name: published names and 'demo' are taken, and a name consists of letters, "
            "digits and . _ + -"
        )


def _resolved(config: str) -> str:
    return str(Path(config).resolve()) if Path(config).is_file() else config


def checkpoint_path(model: PublishedModel | AddedModel, folder: Path) -> Path:
    """Returns where a model's checkpoint is, or would be, given the models folder."""
    return Path(model.checkpoint) if isinstance(model, AddedModel) else folder / f"{model.name}.pt"


def add(folder: Path, model: AddedModel) -> None:
    """Adds a model to a models folder; its configuration and checkpoint stay where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{model.name}.json.part"
    partial.write_text(json.dumps(asdict(model), indent=2) + "\n")
    partial.replace(folder / f"{model.name}.json")


def added(folder: Path, name: str) -> AddedModel | None:
    """Returns the added model with a name; None if there is none.

    Raises:
        ModelError: Its JSON file is damaged.
    """
    path = folder / f"{name}.json"
    if not _NAME.fullmatch(name) or not path.is_file():
        return None
    try:
        return AddedModel(**json.loads(path.read_text()))
    except (OSError, TypeError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}; add the model again") from error


def all_added(folder: Path) -> list[AddedModel]:
    """Returns all added models, by name."""
    return [model for path in sorted(folder.glob("*.json")) if (model := added(folder, path.stem)) is not None]


def _digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_file(path: Path) -> None:
    """Checks that a file can be read, and that its first bytes may be those of a checkpoint.

    Raises:
        ModelError: The file is missing, unreadable, empty, truncated, a web page, a Git LFS pointer, text or archive.
    """
    if path.is_dir():
        raise ModelError(f"{path} is a folder; name the checkpoint file in it")
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except FileNotFoundError as error:
        raise ModelError(f"no checkpoint at {path}: put the file there or name it with --checkpoint") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    if (what := _mistaken(path, head)) is not None:
        raise ModelError(f"{path} is {what}")


def _mistaken(path: Path, head: bytes) -> str | None:
    """Says what a file is instead of a checkpoint, judged by its first bytes, and the remedy; None if it may be one."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "empty (0 bytes): the download or copy failed; get it again"
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file it stands for: run 'git lfs pull' in its repository"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return (
            "a web page (HTML or XML), not a checkpoint: download the file itself; the address may need a login or "
            "lead to a page about the file"
        )
    if head.startswith(b"PK\x03\x04") and not zipfile.is_zipfile(path):
        return "truncated: it begins like a checkpoint, but its end is missing; get or save it again"
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf")) or head[257:262] == b"ustar":
        return "a compressed or tar archive: unpack it and name the checkpoint file in it"
    if re.fullmatch(rb"[\t\r\n\x20-\x7e]+", head):
        return f"a text file that begins with {head[:40].decode()!r}, not a checkpoint (.pt or .safetensors)"
    return None


def verify(path: Path, model: PublishedModel | AddedModel) -> None:
    """Verifies that a file is a model's checkpoint, by size and SHA-256.

    Raises:
        ModelError: It is not; the message names the file and both digests.
    """
    is_downloaded = model.url is not None
    if not path.is_file():
        raise ModelError(
            f"no checkpoint at {path}: 'maskwire models pull {model.name}' downloads it"
            if is_downloaded
            else f"no checkpoint at {path}, where {model.name!r} was added from: put it back, or add the model again"
        )
    check_file(path)
    size = model.size_bytes
    if size is not None and path.stat().st_size != size:
        raise ModelError(
            f"{path} has {path.stat().st_size} bytes instead of {size}: it is truncated or another file; "
            "delete it and get it again"
        )
    got = _digest(path)
    if got != model.sha256:
        raise ModelError(
            f"{path} has SHA-256 {got} instead of {model.sha256}: "
            + (
                "it is damaged or another file; delete it and get it again"
                if is_downloaded
                else f"it has changed since {model.name!r} was added; if it is meant to, add the model again"
            )
        )
