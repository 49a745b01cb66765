"""maskwire click"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

from maskwire.blocking_session import Session
from maskwire.cli import inputs
from maskwire.client import Client
from maskwire.errors import InvalidRequest, OutputMissing
from maskwire.results import Result
from maskwire.suggest import no_such

_HELP = """X,Y          a click inside the object      -X,Y       a click outside of it
box X0,Y0,X1,Y1   a box around it           clear      begin the object anew
undo, redo                                  new        begin another object
save FILE    write the picture              help       this list
quit         or Ctrl-D"""
_WORDS = ("box", "clear", "help", "new", "quit", "redo", "save", "undo")


def run(
    image: str, *, image_id: str | None, model: str, stretch: str, output: Path | None, connection: dict[str, Any]
) -> None:
    if image == "-":
        raise InvalidRequest("standard input is where the clicks come from; give a file", "BAD_IMAGE", "image")
    source = inputs.read(image)
    console = Console()
    output = output or Path(f"{source.stem}.overlay.png")
    with (
        Client(**connection) as client,
        client.session(inputs.embedded(client, source, image_id, model, stretch)[0]) as session,
    ):
        ready = session.image
        console.print(f"{image}: {ready.width_px}x{ready.height_px} px, model {ready.model}", highlight=False)
        if sys.stdin.isatty():
            console.print(_HELP, highlight=False)
        result: Result | None = None
        for line in _lines():
            word, _, rest = line.partition(" ")
            try:
                if word in ("q", "quit", "exit"):
                    return
                if word in ("h", "help", "?"):
                    console.print(_HELP, highlight=False)
                    continue
                if word == "save":
                    _save(result, Path(rest.strip() or output), console)
                    continue
                result = _step(session, word, rest or line)
                _tell(session, result, output, console)
            except InvalidRequest as error:
                console.print(f"error: {error}", style="red", highlight=False, soft_wrap=True)


def _lines() -> Iterator[str]:
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        if line:
            yield line


def _step(session: Session, word: str, text: str) -> Result | None:
    steps: dict[str, Callable[[], Result | None]] = {
        "undo": session.undo,
        "redo": session.redo,
        "clear": session.clear,
        "box": lambda: session.box(*_numbers(text, 4)),
    }
    if word == "new":
        session.new_object()
        return None
    if word in steps:
        return steps[word]()
    positive = not text.startswith("-")
    return session.click(*_numbers(text.lstrip("+-"), 2), positive=positive)


def _numbers(text: str, count: int) -> list[float]:
    try:
        numbers = [float(part) for part in text.replace(",", " ").split()]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        word = text.split()[0] if text.split() else text
        if word == "box" or count == 4:
            raise InvalidRequest("a box is X0,Y0,X1,Y1 in pixels, such as: box 75,275,1725,850", "BAD_BOX")
        if not word.isalpha():
            raise InvalidRequest(f"{text!r} is not a click; that is X,Y in pixels, such as 500,375", "BAD_POINT")
        raise InvalidRequest(f"{no_such('command', word, _WORDS)}; 'help' lists all", "BAD_COMMAND")
    return numbers


def _tell(session: Session, result: Result | None, output: Path, console: Console) -> None:
    if result is None:
        console.print(f"{session.object_id}: no mask", highlight=False)
        return
    line = (
        f"{session.object_id}: score {result.score:.2f}, {result.mask.mean():.1%} of the picture, "
        f"{result.timings['total_ms']:.0f} ms in the decoder"
    )
    with contextlib.suppress(OutputMissing):  # of an image that is known by its name only
        picture = result.overlay()
        picture.save(output)
        line += f" -> {output}"
        if console.is_terminal:
            console.print(_in_cells(picture, min(console.width, 100)))
    console.print(line, highlight=False, soft_wrap=True)


def _save(result: Result | None, path: Path, console: Console) -> None:
    if result is None:
        raise InvalidRequest("there is no mask to save; click first", "NO_MASK")
    try:
        result.save_overlay(path)
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"cannot write {path}: {error}", "BAD_OUTPUT") from error
    console.print(f"saved {path}", highlight=False, soft_wrap=True)


def _in_cells(picture: Image.Image, columns: int) -> Text:
    """A picture as terminal text, two pixels a character."""
    rows = max(2, round(picture.height * columns / picture.width)) // 2 * 2
    small = picture.resize((columns, rows)).convert("RGB")
    text = Text()
    for y in range(0, rows, 2):
        for x in range(columns):
            upper, lower = (Color.from_rgb(*small.getpixel((x, y + below))) for below in (0, 1))  # type: ignore[misc]
            text.append("▀", Style(color=upper, bgcolor=lower))
        text.append("\n")
    return text
