"""Reads data sets of any format."""

import zipfile
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Literal

from maskwire.arguments import check_choice
from maskwire.datasets.annotations import AnnotatedImage
from maskwire.datasets.coco import read_coco
from maskwire.datasets.cvat import read_cvat
from maskwire.datasets.label_studio import read_label_studio
from maskwire.errors import InvalidRequest

ReadableForm = Literal["coco", "cvat", "label-studio"]

_READERS: dict[str, Callable[[Path], list[AnnotatedImage]]] = {
    "coco": read_coco,
    "cvat": read_cvat,
    "label-studio": read_label_studio,
}


def read(path: str | PathLike[str], form: ReadableForm | None = None) -> list[AnnotatedImage]:
    """Reads the images and the marked objects of a data set.

    Args:
        path: The file: COCO's JSON; CVAT's "CVAT for images 1.1", as XML or as the zip file with it; or Label Studio's
            export "JSON".
        form: "coco", "cvat" or "label-studio"; None: judged by the file's first bytes.

    Raises:
        InvalidRequest: NO_SUCH_FILE; UNREADABLE_FILE; BAD_FORM: no such form; BAD_DATASET: the file is none of these,
            and the message says what is wrong in it.
    """
    file = Path(path)
    if form is not None:
        check_choice("form", form, _READERS)
    try:
        return _READERS[form or _judged(file)](file)
    except FileNotFoundError as error:
        raise InvalidRequest(f"no such file: {file}", "NO_SUCH_FILE", "path") from error
    except (OSError, zipfile.BadZipFile) as error:
        raise InvalidRequest(f"cannot read {file}: {error}", "UNREADABLE_FILE", "path") from error


def _judged(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith((b"PK\x03\x04", b"<")):
        return "cvat"
    if head.startswith((b"{", b"[")):
        return "coco" if head.startswith(b"{") else "label-studio"
    raise InvalidRequest(
        f"{path} begins neither like COCO's JSON nor like an export of CVAT (XML, or zip) or Label Studio (JSON)",
        "BAD_DATASET",
        "path",
    )
