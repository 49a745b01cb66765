"""Asks for the masks of one image, and says what the data set gets."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np

from maskwire.client import Client
from maskwire.embedded_image import EmbeddedImage
from maskwire.errors import (
    ImageNotFound,
    InvalidRequest,
    MaskwireError,
    NotAllowed,
    NotAuthenticated,
    Overloaded,
    ServerUnavailable,
)
from maskwire.pictures import Stretch
from maskwire.prelabelling.boxes_file import ImageBoxes
from maskwire.prompts import Prompt
from maskwire.results import Result
from maskwire.sources import Reading, Source

T = TypeVar("T")

_PROMPTS_AT_ONCE = 64  # a request takes at most 128
_PAUSE_S = 1.0  # at least so long between refusals, after the retries of the client


@dataclass(frozen=True)
class Making:
    """How masks are made."""

    model: str  # name of the model
    stretch: Stretch  # how samples of more than 8 bits are mapped to 8
    polygons: bool  # whether segmentations are polygons instead of RLE
    tight_boxes: bool  # whether boxes become those of the masks


def make_masks(client: Client, folder: Path, image: ImageBoxes, making: Making) -> dict[str, Any]:
    """Makes the masks of an image's boxes. Returns the line of the journal: what each annotation gets, and the boxes
    that cannot be prompts, with the reason.

    Raises:
        InvalidRequest: The file is missing or unreadable, or is not of the stated size.
        MaskwireError: The servers refuse it, or do not answer.
    """
    picture = Source(_path_of(folder, image.file_name), Reading(stretch=making.stretch))
    embedded = client.embed(picture, picture.content_name(), model=making.model, bulk=True)
    _check_size(image, embedded)
    prompts, skipped = [], []
    for box in image.boxes:
        corners = clip(box.xywh, embedded.width, embedded.height)
        if corners is None:
            what = f"the box {list(box.xywh)} has no area within the image, {embedded.width}x{embedded.height} px"
            skipped.append({"annotation": box.annotation, "reason": what})
        else:
            prompts.append((box.annotation, Prompt(box=corners)))
    masks: list[tuple[int, dict[str, Any]]] = []
    for start in range(0, len(prompts), _PROMPTS_AT_ONCE):
        some = prompts[start : start + _PROMPTS_AT_ONCE]
        results = client.segment_objects(embedded, [prompt for _, prompt in some], multimask=False)
        masks += [(annotation, _fields(result, making)) for (annotation, _), result in zip(some, results, strict=True)]
    return {"image": image.image, "file_name": image.file_name, "masks": masks, "skipped": skipped}


def when_not_busy(ask: Callable[[], T], stopping: threading.Event) -> T:
    """Asks until the servers have time for it; a job that nobody waits for can wait.

    Args:
        ask: Makes the calls.
        stopping: Once it is set, a refusal is final.

    Raises:
        MaskwireError: What `ask` raises, other than that the servers are busy.
    """
    while True:
        try:
            return ask()
        except Overloaded as error:
            if not _is_busy(error) or stopping.wait(max(error.retry_after_s or 0, _PAUSE_S)):
                raise


def failure(image: ImageBoxes, error: MaskwireError) -> dict[str, Any]:
    """Returns the line of the journal of an image that failed."""
    described = {"message": error.message, "reason": error.reason, "field": error.field}
    return {"image": image.image, "file_name": image.file_name, "error": described}


def stops_job(error: MaskwireError) -> bool:
    """Whether an error is of the servers or of the caller, and would be that of each further image."""
    if isinstance(error, Overloaded):
        return _is_busy(error)  # else this image is too large
    if isinstance(error, ServerUnavailable):
        return error.reason != "SERVERS_LOST"  # this image may be what ends servers
    if error.reason in ("CLOSED", "FORKED", "WRONG_SERVER"):
        return True
    return isinstance(error, NotAuthenticated | NotAllowed | ImageNotFound)


def _is_busy(error: Overloaded) -> bool:
    return error.retry_after_s is not None and error.retry_after_s >= 0


def clip(xywh: tuple[float, ...], width: int, height: int) -> tuple[float, float, float, float] | None:
    """Returns the corners x_min, y_min, x_max, y_max of the part of a box within the image, as data sets' boxes often
    end a little outside; None if it has no area."""
    x, y, box_width, box_height = xywh
    corners = np.array([x, y, x + box_width, y + box_height], np.float64).clip(0, [width, height, width, height])
    x_min, y_min, x_max, y_max = (float(value) for value in corners.astype(np.float32))  # the precision of requests
    return (x_min, y_min, x_max, y_max) if x_min < x_max and y_min < y_max else None


def _path_of(folder: Path, file_name: str) -> Path:
    name = PurePosixPath(file_name)
    if name.is_absolute() or ".." in name.parts:
        raise InvalidRequest(
            f"{file_name} is outside of the folder of images; give a path within it", "BAD_FILE_NAME", "file_name"
        )
    return folder / name


def _check_size(image: ImageBoxes, embedded: EmbeddedImage) -> None:
    size = embedded.width, embedded.height
    if image.size is not None and image.size != size:
        raise InvalidRequest(
            f"the file is {size[0]}x{size[1]} px as a viewer shows it, but the data set says "
            f"{image.size[0]}x{image.size[1]}; its boxes would be somewhere else. Correct the data set, or the file",
            "OTHER_SIZE",
            "image",
        )


def _fields(result: Result, making: Making) -> dict[str, Any]:
    made = result.to_coco(polygons=making.polygons)
    names = ["segmentation", "area", "score"]
    if making.tight_boxes and made["area"]:
        names.insert(2, "bbox")
    return {name: made[name] for name in names}
