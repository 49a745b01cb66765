"""The command `maskwire click`: an interactive session in the terminal."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text
from typer import BadParameter

from maskwire.blocking_session import Session
from maskwire.cli import inputs
from maskwire.cli.coordinates import parse_box, parse_point
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
                match word:
                    case "q" | "quit" | "exit":
                        return
                    case "h" | "help" | "?":
                        console.print(_HELP, highlight=False)
                    case "save":
                        _save(result, Path(rest.strip() or output), console)
                    case _:
                        result = _apply(session, word, rest, line)
                        _show(session, result, output, console)
            except (InvalidRequest, BadParameter) as error:
                console.print(f"error: {error}", style="red", highlight=False, soft_wrap=True)


def _read_lines() -> Iterator[str]:
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        if line:
            yield line


def _apply(session: Session, word: str, rest: str, line: str) -> Result | None:
    """Applies a command to the session's object and returns the new mask, or None if there is none."""
    match word:
        case "undo":
            return session.undo()
        case "redo":
            return session.redo()
        case "clear":
            session.clear()
            return None
        case "new":
            session.new_object()
            return None
        case "box":
            return session.box(*parse_box(rest))
    if word.isalpha():
        raise InvalidRequest(f"{no_such('command', word, _WORDS)}; 'help' lists all", "BAD_COMMAND")
    return session.click(*parse_point(line.removeprefix("-")), positive=not line.startswith("-"))


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
