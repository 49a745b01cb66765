"""The maskwire command: its commands, and the options that all of them have."""

import os
from collections.abc import Callable
from typing import Annotated

import typer

import maskwire
from maskwire.cli import image_commands, running, server_commands

app = typer.Typer(
    help="""SAM 2 as a service: encode an image once, click on it anywhere.

    Start the servers in one terminal:   maskwire up

    and segment in another:              maskwire segment photo.jpg --point 500,375 -o mask.png

    Coordinates are pixels of the image as a viewer shows it: x to the right, y down, from the top left corner.

    Commands find the servers by their options, else by MASKWIRE_ENCODER and MASKWIRE_DECODER, else they take the
    'maskwire up' that runs on this machine (the one started last), else localhost:50051 and localhost:50052.

    Exit codes: 0 done; 1 failed, for the reason on standard error; 2 a wrong option; 130 Ctrl-C.
    """,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"maskwire {maskwire.__version__}")
        raise typer.Exit


@app.callback()
def prepare(
    context: typer.Context,
    token: Annotated[
        str | None,
        typer.Option(envvar="MASKWIRE_TOKEN", help="Bearer token. Other users see options: better in the environment."),
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", envvar="MASKWIRE_TLS", help="Encrypt connections.")] = False,
    tls_ca: Annotated[
        str | None,
        typer.Option(
            envvar="MASKWIRE_TLS_CA", help="PEM file that servers' certificates are signed with; implies --tls."
        ),
    ] = None,
    tls_client_cert: Annotated[
        str | None, typer.Option(envvar="MASKWIRE_TLS_CLIENT_CERT", help="PEM file of your own certificate (mTLS).")
    ] = None,
    tls_client_key: Annotated[
        str | None, typer.Option(envvar="MASKWIRE_TLS_CLIENT_KEY", help="PEM file of its key.")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Puts into the environment what clients, started servers and the options of commands read there."""
    chosen = {
        "MASKWIRE_TOKEN": token,
        "MASKWIRE_TLS": "1" if tls else None,
        "MASKWIRE_TLS_CA": tls_ca,
        "MASKWIRE_TLS_CLIENT_CERT": tls_client_cert,
        "MASKWIRE_TLS_CLIENT_KEY": tls_client_key,
    }
    os.environ.update({name: value for name, value in chosen.items() if value is not None})
    if context.invoked_subcommand != "up":  # which starts servers of its own
        for found in running.find()[:1]:
            for name, value in found.environment.items():
                os.environ.setdefault(name, value)
    context.obj = _models_served


def _models_served() -> list[str]:
    """Names of the models that the encoder serves, or none where no encoder answers: for 'maskwire models list'."""
    from maskwire.cli.status import served

    return served()


_COMMANDS: tuple[Callable[..., None], ...] = (
    image_commands.segment,
    image_commands.click,
    image_commands.everything,
    image_commands.embed,
    image_commands.images,
    image_commands.delete,
    server_commands.profile,
    server_commands.status,
    server_commands.up,
)
for command in _COMMANDS:
    app.command()(command)
