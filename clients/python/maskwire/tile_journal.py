"""What is done of a picture's tiles, in a file, so that a job that was killed goes on."""

import base64
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from maskwire.automatic_masks import FoundMask
from maskwire.errors import InvalidRequest
from maskwire.regions import Place
from maskwire.v1 import decoder_pb2 as pb

FORMAT = 1
"""Version of the format of journals."""


class TileJournal:
    """Lines of JSON that are only ever added to: what the job is, then each tile that is done, with its masks. A line
    that was cut off counts for nothing: its tile is clicked again.

    Args:
        path: The file, which may be new; None to keep nothing.
        job: What determines the masks: the content key of the picture, and the parameters.

    Attributes:
        done: By the place of each tile that is done, its masks, how many each filter removed, and the number of clicks.

    Raises:
        InvalidRequest: BAD_JOURNAL: the file is no journal, or another job's, or it cannot be written.
    """

    def __init__(self, path: Path | None, job: Mapping[str, Any]) -> None:
        self.done: dict[Place, tuple[list[FoundMask], dict[str, int], int]] = {}
        self._path = path
        if path is None:
            return
        header = {"maskwire_tiles": FORMAT, **job}
        try:
            lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
            if lines and not lines[-1].endswith(b"\n"):
                os.truncate(path, sum(map(len, lines[:-1])))
                lines.pop()
        except OSError as error:
            raise self._bad(str(error.strerror or error)) from error
        if not lines:
            self._write(header)
            return
        try:
            if json.loads(lines[0]) != header:
                raise self._bad("it is of another picture, model or set of parameters; give another file")
            for line in lines[1:]:
                self._read(json.loads(line))
        except (ValueError, TypeError, KeyError, RecursionError, DecodeError) as error:
            raise self._bad("it is no journal of tiles; give another file") from error

    def add(self, place: Place, masks: Sequence[FoundMask], removed: Mapping[str, int], clicks: int) -> None:
        """Enters a tile, and returns when it is on disk."""
        if self._path is not None:
            found = [base64.b64encode(mask.message().SerializeToString()).decode() for mask in masks]
            self._write({"tile": place, "found": found, "removed": dict(removed), "clicks": clicks})

    def _read(self, line: Mapping[str, Any]) -> None:
        left, top, right, bottom = line["tile"]
        found = [FoundMask(pb.GeneratedMask.FromString(base64.b64decode(each))) for each in line["found"]]
        self.done[left, top, right, bottom] = found, dict(line["removed"]), line["clicks"]

    def _write(self, line: Mapping[str, Any]) -> None:
        assert self._path is not None
        try:
            with self._path.open("ab") as file:
                file.write(json.dumps(line).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._bad(str(error.strerror or error)) from error

    def _bad(self, said: str) -> InvalidRequest:
        return InvalidRequest(f"{self._path}: {said}", "BAD_JOURNAL", "journal")
