"""The command line interface, `maskwire`."""

import json
import logging
import os
import signal
import sys
from importlib.metadata import entry_points

from maskwire.cli.app import app
from maskwire.cli.output import describe_error, refuse_server_command
from maskwire.errors import MaskwireError


def main() -> None:
    """Runs a command. An error is printed as one line with a remedy, or with --json as JSON, and the exit code is 1."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # hides gRPC's messages about event loops
    installed = entry_points(group="maskwire.commands")  # the commands of maskwire-server
    for command in installed:
        app.add_typer(command.load(), name=command.name)
    for name in {"models", "store", "token"} - installed.names:
        accept_all = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
        app.command(name, hidden=True, context_settings=accept_all)(refuse_server_command)
    try:
        app()
    except MaskwireError as error:
        if "--json" in sys.argv:
            print(json.dumps({"error": describe_error(error)}))
        else:
            print(f"error: {error.message if error.field == 'image' else error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        # The reader has closed the pipe. Buffered output must not raise again when the interpreter exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
