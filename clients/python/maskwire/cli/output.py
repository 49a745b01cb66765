"""Standard output for results, and what is said beside it."""

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console

from maskwire.errors import InvalidRequest


def check_stdout(is_text: bool) -> None:
    """Checks that results can go to standard output.

    Raises:
        InvalidRequest: They are binary, and it is a terminal.
    """
    if not is_text and sys.stdout.isatty():
        raise InvalidRequest(
            "this format is binary and standard output is a terminal; write '-o - > FILE', or -o FILE",
            "STDOUT_IS_TERMINAL",
            "--output",
        )


def write_stdout(contents: Sequence[bytes]) -> None:
    """Writes a result to standard output as it is.

    Raises:
        InvalidRequest: It is several files.
    """
    if len(contents) != 1:
        raise InvalidRequest(
            f"{len(contents)} pictures cannot go to standard output; give a file, which is numbered",
            "BAD_OUTPUT",
            "--output",
        )
    sys.stdout.buffer.write(contents[0])
    sys.stdout.buffer.flush()


def note_demo(errors: Console, models: Iterable[str]) -> None:
    """Says that masks are rough where the demo model has made them."""
    if "demo" in models:
        errors.print("demo model: rough masks, for trying out; SAM 2's own: 'maskwire models list'")
