"""What the commands print: results on standard output, messages and progress on standard error."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from maskwire.errors import InvalidRequest, MaskwireError


def refuse_server_command() -> NoReturn:
    """Stands in for the commands of maskwire-server if only the client is installed."""
    raise MaskwireError("the servers are not installed: pip install 'maskwire-server[all]'", "NOT_INSTALLED")


def check_stdout(is_text: bool) -> None:
    """Refuses to write binary results to a terminal."""
    if not is_text and sys.stdout.isatty():
        raise InvalidRequest(
            "this format is binary and standard output is a terminal; write '-o - > FILE', or -o FILE",
            "STDOUT_IS_TERMINAL",
            "--output",
        )


def write_stdout(contents: Sequence[bytes]) -> None:
    """Writes a file's content to standard output, byte for byte. Refuses more than one."""
    if len(contents) != 1:
        raise InvalidRequest(
            f"{len(contents)} pictures cannot go to standard output; give a file name, which will be numbered",
            "BAD_OUTPUT",
            "--output",
        )
    sys.stdout.buffer.write(contents[0])
    sys.stdout.buffer.flush()


def describe_error(error: MaskwireError) -> dict[str, Any]:
    """Returns an error as --json prints it."""
    return {"message": error.message, "reason": error.reason, "field": error.field}


def progress_bar(console: Console, label: str, field: str) -> Progress:
    """Makes a progress bar between a label and the format of a task's field, such as "{task.fields[masks]} masks"."""
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn(field))
    return Progress(*columns, console=console)


def note_demo(errors: Console, models: Iterable[str]) -> None:
    """Prints a note that masks are rough if the demo model made them."""
    if "demo" in models:
        errors.print("demo model: rough masks, for trying out; for SAM 2's own models see 'maskwire models list'")
