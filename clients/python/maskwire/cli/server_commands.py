"""Options and help of the commands about servers."""

from pathlib import Path
from typing import Annotated

import typer

from maskwire.cli.options import AsJson, Decoder, Encoder, Kind, Namespace, RetryS, connection


def profile(
    image: Annotated[str, typer.Argument(help="Image file.")],
    clicks: Annotated[int, typer.Option("--clicks", "-c", min=1, help="Warm clicks to take the median of.")] = 50,
    encoder: Encoder = None,
    decoder: Decoder = None,
    namespace: Namespace = "",
    retry_s: RetryS = 5,
    as_json: AsJson = False,
) -> None:
    """Show where the time of embedding an image and of a click on it goes, hop by hop, in your own deployment."""
    from maskwire.cli.profile import run

    run(image, clicks=clicks, connection=connection(encoder, decoder, namespace, retry_s), as_json=as_json)


def status(
    kind: Annotated[Kind | None, typer.Argument(help="Ask only these servers; all if not given.")] = None,
    encoder: Encoder = None,
    decoder: Decoder = None,
    as_json: AsJson = False,
) -> None:
    """Show which servers answer, and which models they serve. Exit code 1 if one does not."""
    from maskwire.cli.status import run

    run(kind, encoder, decoder, as_json=as_json)


def up(
    model: Annotated[
        list[str] | None,
        typer.Option(
            envvar="MASKWIRE_MODEL",
            help="demo (if not given), a SAM 2 name such as sam2.1_hiera_tiny, or one of your own. Repeatable; the "
            "first is what requests get that name none. See 'maskwire models list'.",
        ),
    ] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Weights of the model (.pt or .safetensors).")] = None,
    config: Annotated[str | None, typer.Option(help="Configuration of a model of your own (YAML).")] = None,
    device: Annotated[
        str,
        typer.Option(
            envvar="MASKWIRE_DEVICE",
            help="auto, cpu, cuda or cuda:N. Several with commas, or all CUDA devices with 'all': an encoder for each; "
            "ports count up.",
        ),
    ] = "auto",
    decoders: Annotated[int, typer.Option(min=0, max=64, help="Decoder processes; ports count up.")] = 1,
    redis_url: Annotated[
        str | None, typer.Option(envvar="MASKWIRE_REDIS_URL", help="Store to use; without it, one is started.")
    ] = None,
    redis_memory_mb: Annotated[int, typer.Option(min=64, help="Memory of the store that is started, in MiB.")] = 2048,
    store_codec: Annotated[
        str, typer.Option(envvar="MASKWIRE_STORE_CODEC", help="How embeddings are stored: fp32, fp16, int8 or int4.")
    ] = "fp16",
    host: Annotated[
        str, typer.Option(envvar="MASKWIRE_HOST", help="Address to listen on; 0.0.0.0 for all.")
    ] = "127.0.0.1",
    encoder_port: Annotated[
        int, typer.Option(min=0, max=65535, help="First encoder's port; 0 takes free ones.")
    ] = 50051,
    decoder_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="First decoder's port, by default the encoders' next; 0 takes free ones."),
    ] = None,
    gateway_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the page and the HTTP interface; 0 takes a free one.")
    ] = 9001,
    gateway: Annotated[bool, typer.Option(help="Start the gateway, if it is installed.")] = True,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the servers' logs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the addresses as one JSON line when ready.")] = False,
) -> None:
    """Start a store, an encoder and decoders on this machine, and keep them running until Ctrl-C.

    Other settings of the servers are environment variables: see python -m maskwire_encoder --help, and
    python -m maskwire_decoder --help.
    """
    from maskwire.cli.up import run

    run(
        models=model or ["demo"],
        checkpoint=checkpoint,
        config=config,
        device=device,
        decoders=decoders,
        redis_url=redis_url,
        redis_memory_mb=redis_memory_mb,
        store_codec=store_codec,
        host=host,
        encoder_port=encoder_port,
        decoder_port=decoder_port,
        gateway_port=gateway_port if gateway else None,
        verbose=verbose,
        as_json=as_json,
    )
