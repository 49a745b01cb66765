"""Puts the data set with the masks together, and writes it."""

import hashlib
import json
import os
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from maskwire.errors import InvalidRequest


def assemble(document: dict[str, Any], lines: Iterable[dict[str, Any]]) -> bytes:
    """Adds masks to a data set, and encodes it. All else stays as it is; a score that an annotation has (a detector's,
    of its box) becomes `box_score`.

    Args:
        document: The data set; its annotations are changed.
        lines: Lines of journals with the masks of images.
    """
    annotations = document["annotations"]
    for line in lines:
        for position, made in line["masks"]:
            annotation = annotations[position]
            if "score" in annotation:
                annotation.setdefault("box_score", annotation["score"])
            annotation.update(made)
    return (json.dumps(document) + "\n").encode()


def digest_of(content: bytes) -> str:
    """Returns the digest of an output, as journals have it."""
    return hashlib.sha256(content).hexdigest()


def check_free(path: Path, boxes: Path, own: Collection[str]) -> None:
    """Checks that an output does not replace a file that is not its own.

    Args:
        path: Path of the output.
        boxes: Path of the data set with the boxes.
        own: Digests of contents that may be replaced.

    Raises:
        InvalidRequest: There is another file, or it is a folder.
    """
    if path.is_dir():
        raise InvalidRequest(f"{path} is a folder; give a file, such as {path / 'masks.json'}", "BAD_OUTPUT", "--out")
    if path.exists() and boxes.exists() and path.samefile(boxes):
        raise InvalidRequest(
            f"{path} is the file with the boxes, which is needed to go on with the job; give another file",
            "BAD_OUTPUT",
            "--out",
        )
    if path.exists() and digest_of(path.read_bytes()) not in own:
        raise InvalidRequest(
            f"{path} exists, and is not what this job wrote (or was changed since); move it away, or give another file",
            "BAD_OUTPUT",
            "--out",
        )


def write(path: Path, content: bytes) -> bool:
    """Writes an output at once and for good: whoever looks sees the old file or the new one, also after a crash.

    Returns:
        Whether the file was not there with that content already.

    Raises:
        InvalidRequest: It cannot be written.
    """
    try:
        if path.exists() and path.read_bytes() == content:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            try:
                file.write(content)
                file.flush()
                os.fchmod(file.fileno(), 0o666 & ~_umask())
                os.fsync(file.fileno())
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        raise InvalidRequest(f"cannot write {path}: {error.strerror or error}", "BAD_OUTPUT", "--out") from error
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
