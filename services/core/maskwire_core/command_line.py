"""What the `maskwire` subcommands of this package share."""

import json
import sys
from typing import Annotated, NoReturn

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def fail(error: object, as_json: bool = False) -> NoReturn:
    """Prints an error, to standard output if as JSON, and exits with status 1."""
    if as_json:
        print(json.dumps({"error": {"message": str(error)}}))
    else:
        print(f"error: {error}", file=sys.stderr)
    sys.exit(1)
