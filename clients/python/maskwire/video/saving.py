"""Writes the masks of a clip: a data set, pictures, or a film or GIF with the masks drawn over the frames."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal, Protocol, TypedDict, get_args

from PIL import Image

from maskwire.arguments import check_choice
from maskwire.errors import InvalidRequest
from maskwire.video.clip import Clip
from maskwire.video.colours import drawn_colours
from maskwire.video.drawing import draw_objects
from maskwire.video.film_writer import FILM_ENDINGS, FilmWriter
from maskwire.video.frame import scaled_down
from maskwire.video.gif_writer import GifWriter
from maskwire.video.index_pictures import index_picture
from maskwire.video.mask_sequence import MaskSequence
from maskwire.video.youtube_vis import video_dataset

SavedForm = Literal["overlay", "masks", "coco"]
"""What is written: frames with masks drawn over them, pictures of object numbers, or a data set."""

_GIF_SIDE = 640


class SavingArguments(TypedDict, total=False):
    """Keyword arguments that say how masks are written.

    Attributes:
        form: What to write into a folder: "masks" (object numbers, the default) or "overlay". A file's ending says it.
        max_side: Scale drawn frames down such that the longer side has at most so many pixels; GIFs: 640 by default.
        names: Whether drawn masks have their objects' names on them.
        classes: Each object's class, for data sets; by default an object's name is its class.
    """

    form: SavedForm | None
    max_side: int | None
    names: bool
    classes: Mapping[str, str] | None


class _Writer(Protocol):
    def write(self, picture: Image.Image, time_s: float) -> None: ...

    def close(self) -> None: ...


def save(
    masks: MaskSequence,
    path: str | os.PathLike[str],
    clip: Clip,
    *,
    form: SavedForm | None = None,
    max_side: int | None = None,
    names: bool = True,
    classes: Mapping[str, str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Path]:
    """Writes the masks of a clip in the format of the path's ending.

    | path | what |
    |---|---|
    | .mp4, .mov, .mkv, .webm | the frames, with masks drawn over them (needs PyAV) |
    | .gif | likewise, scaled down to 640 pixels unless `max_side` says otherwise |
    | .json | a data set in the form of YouTube-VIS: `segmentations` with an RLE or null for each frame |
    | a folder | 00000.png, ...: object numbers, as DAVIS has them, with objects.json; `form="overlay"`: pictures |

    A file gets its name when it is closed. If writing it is interrupted by Ctrl-C or an error, it has the frames up to
    there.

    Args:
        masks: The masks.
        path: File or folder to write.
        clip: The clip, whose frames are read once more.
        form: What to write into a folder; "masks" by default. For files the ending says it.
        max_side: Scale drawn frames down such that the longer side has at most so many pixels.
        names: Whether drawn masks have their objects' names on them.
        classes: Each object's class, for data sets; by default an object's name is its class.
        progress: Is told how many frames are written.

    Returns:
        The files, in order; those of a folder begin with objects.json.

    Raises:
        InvalidRequest: BAD_OUTPUT: the ending is unknown, or the file cannot be written.
        OutputMissing: NO_PYAV: a film needs PyAV.
    """
    path = Path(path)
    ending = check_path(path, form)
    told = progress or (lambda done: None)
    with _reporting(path):
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        if ending == ".json":
            listed = clip.listing()
            document = video_dataset(masks, [name for name, _ in listed], [time_s for _, time_s in listed], classes)
            with _renamed(path) as part:
                part.write_text(json.dumps(document) + "\n")
            told(len(listed))
            return [path]
        if not ending:
            return _save_pictures(masks, path, clip, form or "masks", max_side, names, told)
        side = max_side or (_GIF_SIDE if ending == ".gif" else None)
        size = scaled_down(Image.new("1", clip.size), side).size
        with _renamed(path) as part:
            writer: _Writer = (
                GifWriter(part, size, clip.frame_rate, drawn_colours(len(masks.objects)))
                if ending == ".gif"
                else FilmWriter(part, ending, size, clip.frame_rate)
            )
            with contextlib.closing(writer):
                for frame in clip:
                    drawn = draw_objects(frame.picture, masks.arrays(frame.index), masks.objects, names)
                    writer.write(scaled_down(drawn, side), frame.time_s)
                    told(frame.index + 1)
        return [path]


def check_path(path: Path, form: SavedForm | None = None) -> str:
    """Checks that something can be written to a path, before the work begins.

    Returns:
        The ending; empty for a folder.

    Raises:
        InvalidRequest: BAD_OUTPUT: the ending is unknown, or form is for something else. BAD_FORM: no such form.
    """
    if form is not None:
        check_choice("form", form, get_args(SavedForm))
    ending = "" if path.is_dir() else path.suffix.lower()
    written = {"": "masks", ".json": "coco", ".gif": "overlay", **dict.fromkeys(FILM_ENDINGS, "overlay")}
    if ending not in written:
        raise InvalidRequest(
            f"{path} ends in none of {', '.join(name for name in written if name)}; for pictures of each frame give a "
            "folder",
            "BAD_OUTPUT",
            "path",
        )
    if form not in (None, written[ending]) and not (not ending and form == "overlay"):
        raise InvalidRequest(
            f"{path} is for {written[ending]}, not for {form}; {form} is written to "
            + {"coco": "a .json file", "masks": "a folder", "overlay": ".mp4, .webm, .gif or a folder"}[
                form or "masks"
            ],
            "BAD_OUTPUT",
            "form",
        )
    return ending


def _save_pictures(
    masks: MaskSequence,
    folder: Path,
    clip: Clip,
    form: SavedForm,
    max_side: int | None,
    names: bool,
    told: Callable[[int], None],
) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "objects.json"]
    numbers = {str(number): name for number, name in enumerate(masks.objects, 1)}
    files[0].write_text(json.dumps(numbers, ensure_ascii=False) + "\n", encoding="utf-8")
    for frame in clip:
        arrays = masks.arrays(frame.index)
        if form == "masks":
            picture = index_picture(arrays, masks.objects, clip.size)
        else:
            picture = scaled_down(draw_objects(frame.picture, arrays, masks.objects, names), max_side)
        files.append(folder / f"{frame.index:05}.png")
        picture.save(files[-1])
        told(frame.index + 1)
    return files


@contextlib.contextmanager
def _renamed(path: Path) -> Iterator[Path]:
    """Gives a name to write to. The file gets its own when it is closed, so that nobody sees half of one."""
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
    finally:
        if part.exists():
            part.replace(path)


@contextlib.contextmanager
def _reporting(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidRequest(f"cannot write {path}: {error.strerror or error}", "BAD_OUTPUT", "path") from error
