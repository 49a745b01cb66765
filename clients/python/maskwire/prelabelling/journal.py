"""The journal of a job: what was done, in lines of JSON that are only ever added to.

The first line says what the job is: its data set, its options and its model. Each further line is an image that is
done (with its masks), an image that failed, or the digest of an output before it is written. Lines are on disk before
the job goes on, so a killed job loses at most what was under way. A line that was cut off, or is damaged, counts for
nothing: its image is asked for again.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from maskwire.errors import InvalidRequest

FORMAT = 1
"""Version of the format of journals."""


@dataclass(frozen=True)
class Header:
    """What a job is. Jobs whose headers are equal, but for the shard, make the same masks."""

    boxes_sha256: str  # digest of the file with the boxes
    shard: str  # "3/8", or empty for the whole job
    polygons: bool
    tight_boxes: bool
    replace: bool
    stretch: str
    model: str  # name of the model
    fingerprint: str  # digest of the model

    def differences(self, other: "Header") -> list[str]:
        """Returns the names of the fields in which another header differs."""
        return [each.name for each in fields(self) if getattr(self, each.name) != getattr(other, each.name)]


@dataclass
class State:
    """What the lines of a journal say."""

    header: Header | None = None  # None if the journal is new
    masks: dict[int, int] = field(default_factory=dict)  # the images that are done: number of masks by position
    skipped: dict[int, list[dict[str, Any]]] = field(default_factory=dict)  # boxes of these that cannot be prompts
    failed: dict[int, dict[str, Any]] = field(default_factory=dict)  # the lines of images that failed and are not done
    outputs: set[str] = field(default_factory=set)  # digests of outputs
    damaged: int = 0  # number of lines that cannot be read

    def add(self, line: dict[str, Any]) -> None:
        """Adds what a line says."""
        match line:
            case {"output": str(digest)}:
                self.outputs.add(digest)
            case {"image": int(image), "masks": list(masks), "skipped": list(skipped)}:
                self.masks[image] = len(masks)
                self.skipped[image] = skipped
                self.failed.pop(image, None)
            case {"image": int(image), "error": dict()}:
                if image not in self.masks:
                    self.failed[image] = line
            case _:
                self.damaged += 1


class Journal:
    """A journal that is open, and locked against other processes; see `writing` and `reading`."""

    def __init__(self, path: Path, handle: int) -> None:
        self.path = path
        self._handle = handle
        self.state = State()
        self._end = 0  # of the last complete line; what follows was cut off
        for end, line in self._lines():
            self._end = end
            if self.state.header is None:
                self.state.header = _header(line, path)
            elif line is None:
                self.state.damaged += 1
            else:
                self.state.add(line)

    def begin(self, header: Header) -> None:
        """Writes the header of a new journal."""
        self._write([{"maskwire_prelabel": FORMAT, **asdict(header)}])
        self.state.header = header
        _sync_folder(self.path.parent)

    def add(self, lines: Iterable[dict[str, Any]]) -> None:
        """Adds lines, and returns when they are on disk. The failure that is known of an image is not added again."""
        new = [line for line in lines if self.state.failed.get(line.get("image", -1)) != line]
        self._write(new)
        for line in new:
            self.state.add(line)

    def done(self) -> Iterator[dict[str, Any]]:
        """Reads the lines of the images that are done, once each. The masks are not kept in memory."""
        seen = set()
        for _, line in self._lines():
            if line is not None and "masks" in line and line.get("image") in self.state.masks:
                if line["image"] not in seen:
                    yield line
                seen.add(line["image"])

    def _lines(self) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """Yields where each complete line ends, and what it says; None if it is not a JSON object."""
        end = 0
        with os.fdopen(os.dup(self._handle), "rb") as file:
            file.seek(0)
            for text in file:
                if not text.endswith(b"\n"):
                    return
                end += len(text)
                try:
                    line = json.loads(text)
                except (ValueError, RecursionError):
                    line = None
                yield end, line if isinstance(line, dict) else None

    def _write(self, lines: list[dict[str, Any]]) -> None:
        content = memoryview(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        if not content:
            return
        end = self._end + len(content)
        try:
            os.ftruncate(self._handle, self._end)
            os.lseek(self._handle, self._end, os.SEEK_SET)
            while content:
                content = content[os.write(self._handle, content) :]
            os.fsync(self._handle)
        except OSError as error:
            raise _bad(f"cannot write {self.path}: {error.strerror or error}") from error
        self._end = end


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Journal]:
    """Opens a journal to go on with it, or begins one. No other process can open it meanwhile.

    Raises:
        InvalidRequest: It is in use, is not a journal, or cannot be opened.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise _bad(f"cannot write {path}: {error.strerror or error}") from error
    with _locked(handle, fcntl.LOCK_EX, path):
        try:
            yield Journal(path, handle)
        finally:
            if not os.fstat(handle).st_size:
                path.unlink(missing_ok=True)  # the job did not begin


@contextlib.contextmanager
def reading(path: Path) -> Iterator[Journal]:
    """Opens a journal of a job that does not run.

    Raises:
        InvalidRequest: It is in use, is not a journal, or cannot be opened.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError as error:
        raise _bad(f"no such file: {path}") from error
    except OSError as error:
        raise _bad(f"cannot read {path}: {error.strerror or error}") from error
    with _locked(handle, fcntl.LOCK_SH, path):
        yield Journal(path, handle)


@contextlib.contextmanager
def _locked(handle: int, kind: int, path: Path) -> Iterator[None]:
    """Holds a lock on an open file, which also ends with the process, and closes the file at the end."""
    try:
        in_use = f"{path} is in use: the job runs already; wait until it ends, or give another --out"
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
            if not os.fstat(handle).st_nlink:
                raise _bad(in_use)  # it was in use a moment ago, and was removed
        except BlockingIOError as error:
            raise _bad(in_use) from error
        except OSError as error:
            raise _bad(f"cannot lock {path}: {error.strerror or error}; use a file system with locks") from error
        yield
    finally:
        os.close(handle)


def _header(line: dict[str, Any] | None, path: Path) -> Header:
    names = {each.name for each in fields(Header)}
    if line is not None and line.get("maskwire_prelabel") == FORMAT and names == line.keys() - {"maskwire_prelabel"}:
        return Header(**{name: line[name] for name in names})
    if line is not None and line.get("maskwire_prelabel", FORMAT) != FORMAT:
        raise _bad(f"{path} is the journal of another version of maskwire; finish the job with that, or delete it")
    raise _bad(f"{path} does not begin as a journal of prelabel does; move it away, or give another --out")


def _sync_folder(folder: Path) -> None:
    """Makes sure that the names of new files in a folder are on disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _bad(message: str) -> InvalidRequest:
    return InvalidRequest(message, "BAD_JOURNAL", "--out")
