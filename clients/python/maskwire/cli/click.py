"""The command `maskwire click`: an interactive session in the terminal."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

from maskwire.blocking_session import Session
from maskwire.cli import inputs
from maskwire.cli.options import ClickOptions
from maskwire.errors import InvalidRequest, OutputMissing
from maskwire.results import Result
from maskwire.suggest import no_such

_HELP = """X,Y          a click inside the object      -X,Y       a click outside it
box X0,Y0,X1,Y1   a box around it           clear      remove its prompts
undo, redo                                  new        begin another object
save FILE    write the picture              help       this list
quit         or Ctrl-D"""
_WORDS = ("box", "clear", "help", "new", "quit", "redo", "save", "undo")


def click_in_terminal(options: ClickOptions) -> None:
    """Reads clicks and other commands from standard input until its end, and shows the mask after each."""
    if options.image == "-":
        raise InvalidRequest("the clicks are read from standard input; give a file", "BAD_IMAGE", "image")
    source = inputs.find_input(options.image)
    console = Console()
    output = options.output or Path(f"{source.stem}.overlay.png")
    with (
        options.servers.client() as client,
        client.session(inputs.embed_input(client, source, options.embedding)[0]) as session,
    ):
        ready = session.image
        console.print(f"{options.image}: {ready.width_px}x{ready.height_px} px, model {ready.model}", highlight=False)
        if sys.stdin.isatty():
            console.print(_HELP, highlight=False)
        result: Result | None = None
        for line in _read_lines():
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
                result = _apply(session, word, rest or line)
                _show(session, result, output, console)
            except InvalidRequest as error:
                console.print(f"error: {error}", style="red", highlight=False, soft_wrap=True)


def _read_lines() -> Iterator[str]:
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        if line:
            yield line


def _apply(session: Session, word: str, text: str) -> Result | None:
    """Applies a command to the session's object and returns the new mask, or None if there is none."""
    commands: dict[str, Callable[[], Result | None]] = {
        "undo": session.undo,
        "redo": session.redo,
        "clear": session.clear,
        "box": lambda: session.box(*_parse_numbers(text, 4)),
    }
    if word == "new":
        session.new_object()
        return None
    if word in commands:
        return commands[word]()
    positive = not text.startswith("-")
    return session.click(*_parse_numbers(text.lstrip("+-"), 2), positive=positive)


def _parse_numbers(text: str, count: int) -> list[float]:
    try:
        numbers = [float(part) for part in text.replace(",", " ").split()]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        word = text.split()[0] if text.split() else text
        if word == "box" or count == 4:
            raise InvalidRequest("a box is X0,Y0,X1,Y1 in pixels, such as: box 75,275,1725,850", "BAD_BOX")
        if not word.isalpha():
            raise InvalidRequest(f"{text!r} is not a click; give X,Y in pixels, such as 500,375", "BAD_POINT")
        raise InvalidRequest(f"{no_such('command', word, _WORDS)}; 'help' lists all", "BAD_COMMAND")
    return numbers


def _show(session: Session, result: Result | None, output: Path, console: Console) -> None:
    if result is None:
        console.print(f"{session.object_id}: no mask", highlight=False)
        return
    line = (
        f"{session.object_id}: score {result.score:.2f}, {result.mask.mean():.1%} of the picture, "
        f"{result.timings['total_ms']:.0f} ms in the decoder"
    )
    with contextlib.suppress(OutputMissing):  # the picture of a stored image is not available
        picture = result.overlay()
        picture.save(output)
        line += f" -> {output}"
        if console.is_terminal:
            console.print(_as_text(picture, min(console.width, 100)))
    console.print(line, highlight=False, soft_wrap=True)


def _save(result: Result | None, path: Path, console: Console) -> None:
    if result is None:
        raise InvalidRequest("there is no mask to save; click first", "NO_MASK")
    try:
        result.save_overlay(path)
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"cannot write {path}: {error}", "BAD_OUTPUT") from error
    console.print(f"saved {path}", highlight=False, soft_wrap=True)


def _as_text(picture: Image.Image, columns: int) -> Text:
    """Renders a picture as terminal text, two pixels a character."""
    rows = max(2, round(picture.height * columns / picture.width)) // 2 * 2
    small = picture.resize((columns, rows)).convert("RGB")
    text = Text()
    for y in range(0, rows, 2):
        for x in range(columns):
            upper, lower = (Color.from_rgb(*small.getpixel((x, y + below))) for below in (0, 1))  # type: ignore[misc]
            text.append("▀", Style(color=upper, bgcolor=lower))
        text.append("\n")
    return text
