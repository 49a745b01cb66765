"""Divides the images of a job among machines."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from maskwire.errors import InvalidRequest
from maskwire.prelabelling.boxes_file import ImageBoxes

INDEX_VARIABLE = "JOB_COMPLETION_INDEX"
"""What Kubernetes tells a pod of an indexed Job: the number of its index, from 0."""


@dataclass(frozen=True, order=True)
class Shard:
    """One of the parts into which a job is divided."""

    number: int  # from 1
    count: int  # number of all parts

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str, environment: Mapping[str, str] = os.environ) -> Self:
        """Reads "3/8", the third of eight shards, or "/8", whose number is told by Kubernetes.

        Raises:
            InvalidRequest: It is something else.
        """
        match = re.fullmatch(r"(\d{0,6})/(\d{1,6})", text)
        if match is None:
            raise _wrong(f"{text!r} is not I/N, such as 1/8 to 8/8")
        number, count = match.groups()
        if not number:
            index = environment.get(INDEX_VARIABLE, "")
            if not re.fullmatch(r"\d{1,6}", index):
                raise _wrong(
                    f"{text!r} takes its number from {INDEX_VARIABLE}, which is not set; give I/N, such as 1/8"
                )
            number = str(int(index) + 1)
        shard = cls(int(number), int(count))
        if not 1 <= shard.number <= shard.count:
            raise _wrong(f"there is no shard {shard}; give 1/{shard.count} to {shard.count}/{shard.count}")
        return shard

    def of(self, images: Sequence[ImageBoxes]) -> list[ImageBoxes]:
        """Returns the images of this shard. Images are dealt out in the order of their file names, so that shards
        differ by one file at most; a file that a data set lists twice is not divided."""
        names = sorted({image.file_name for image in images})
        mine = set(names[self.number - 1 :: self.count])
        return [image for image in images if image.file_name in mine]


def journal_path(output: Path, shard: Shard | None) -> Path:
    """Returns the path of the journal beside a job's output: of the whole job, or of a shard."""
    ending = "journal" if shard is None else f"shard-{shard.number}-of-{shard.count}"
    return output.with_name(f"{output.name}.{ending}")


def find_shards(output: Path) -> list[Path]:
    """Finds the journals of shards beside an output."""
    pattern = re.compile(re.escape(output.name) + r"\.shard-\d+-of-\d+")
    folder = output.parent
    return sorted(path for path in folder.iterdir() if pattern.fullmatch(path.name)) if folder.is_dir() else []


def _wrong(what: str) -> InvalidRequest:
    return InvalidRequest(what, "BAD_SHARD", "--shard")
