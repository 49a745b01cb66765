"""The Typer application: its commands, and the options that all of them share."""

import os
from typing import Annotated

import typer

import maskwire
from maskwire.cli import local_servers, options
from maskwire.cli.convert_options import ConvertOptions
from maskwire.cli.dataclass_options import make_command
from maskwire.cli.everything_options import EverythingOptions
from maskwire.cli.prelabel_options import MergeShardsOptions, PrelabelOptions
from maskwire.cli.track_options import TrackOptions
from maskwire.cli.up_options import UpOptions

app = typer.Typer(
    help="""SAM 2 as a service: encode an image once, click on it anywhere.

    Start the servers in one terminal:   maskwire up

    and segment in another:              maskwire segment photo.jpg --point 500,375 -o mask.png

    Coordinates are pixels of the image as a viewer shows it, from the top left corner: x to the right, y down.

    The servers are those given by options, else by MASKWIRE_ENCODER and MASKWIRE_DECODER, else those of the
    'maskwire up' that was started last on this machine, else localhost:50051 and localhost:50052.

    Exit codes: 0 success; 1 failure, explained on standard error; 2 invalid option; 130 interrupted by Ctrl-C.
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
        typer.Option(
            envvar="MASKWIRE_TOKEN",
            help="Bearer token. Other users of the machine can see options, so prefer the environment variable.",
        ),
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", envvar="MASKWIRE_TLS", help="Encrypt connections.")] = False,
    tls_ca: Annotated[
        str | None,
        typer.Option(
            envvar="MASKWIRE_TLS_CA",
            help="PEM file with the certificate authority of the servers' certificates; implies --tls.",
        ),
    ] = None,
    tls_client_cert: Annotated[
        str | None,
        typer.Option(envvar="MASKWIRE_TLS_CLIENT_CERT", help="PEM file with your own certificate, for mutual TLS."),
    ] = None,
    tls_client_key: Annotated[
        str | None, typer.Option(envvar="MASKWIRE_TLS_CLIENT_KEY", help="PEM file with the key of that certificate.")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Sets the environment variables from which clients, started servers and the commands' options take defaults."""
    chosen = {
        "MASKWIRE_TOKEN": token,
        "MASKWIRE_TLS": "1" if tls else None,
        "MASKWIRE_TLS_CA": tls_ca,
        "MASKWIRE_TLS_CLIENT_CERT": tls_client_cert,
        "MASKWIRE_TLS_CLIENT_KEY": tls_client_key,
    }
    os.environ.update({name: value for name, value in chosen.items() if value is not None})
    if context.invoked_subcommand != "up":  # `up` starts servers of its own
        for found in local_servers.find_running()[:1]:
            for name, value in found.environment.items():
                os.environ.setdefault(name, value)
    context.obj = _served_models


def _served_models() -> dict[str, str]:
    """Returns the models that the encoders serve by name, with how their embeddings are stored, for 'maskwire models
    list' of the servers' package."""
    from maskwire.cli.status import served_models

    return served_models()


for name, (kind, runs) in {
    "segment": (options.SegmentOptions, "segment:segment_images"),
    "click": (options.ClickOptions, "click:click_in_terminal"),
    "track": (TrackOptions, "track:track_objects"),
    "everything": (EverythingOptions, "automatic_masks:segment_everything"),
    "prelabel": (PrelabelOptions, "prelabel:prelabel_images"),
    "merge-shards": (MergeShardsOptions, "merge_shards:merge_shards"),
    "embed": (options.EmbedOptions, "embed:embed_images"),
    "convert": (ConvertOptions, "convert:convert_data_set"),
    "images": (options.ImagesOptions, "stored:list_images"),
    "delete": (options.DeleteOptions, "stored:delete_images"),
    "profile": (options.ProfileOptions, "profile:profile_stages"),
    "status": (options.StatusOptions, "status:show_status"),
    "up": (UpOptions, "up:start_servers"),
}.items():
    app.command(name)(make_command(kind, runs))
