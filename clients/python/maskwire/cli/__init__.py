"""The command line: maskwire --help"""

import json
import logging
import os
import signal
import sys
from importlib.metadata import entry_points

from maskwire.cli.app import app
from maskwire.errors import MaskwireError


def main() -> None:
    """Runs a command. Errors are one line with a remedy, exit code 1; with --json, one JSON object."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # grpc's complaints about loops are not the user's
    for command in entry_points(group="maskwire.commands"):  # those of the servers' packages
        app.add_typer(command.load(), name=command.name)
    try:
        app()
    except MaskwireError as error:
        if "--json" in sys.argv:
            print(json.dumps({"error": {"message": error.message, "reason": error.reason, "field": error.field}}))
        else:
            print(f"error: {error.message if error.field == 'image' else error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        # Whoever read the output has enough. What is still buffered must not raise again at the interpreter's end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
