"""Options and help text of `maskwire up`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer


@dataclass(frozen=True, kw_only=True)
class UpOptions:
    """Start a store, an encoder and decoders on this machine, and keep them running until Ctrl-C.

    Other settings of the servers are environment variables: see python -m maskwire_encoder --help, and likewise
    maskwire_decoder and maskwire_tracker.
    """

    model: Annotated[
        list[str] | None,
        typer.Option(
            envvar="MASKWIRE_MODEL",
            help="demo (the default), a SAM 2 name such as sam2.1_hiera_tiny, whose weights are downloaded if they are "
            "not here, or a model of your own. Repeatable; the first one serves requests that name no model. 'maskwire "
            "models list' shows all.",
        ),
    ] = None
    checkpoint: Annotated[Path | None, typer.Option(help="Weights of the model (.pt or .safetensors).")] = None
    config: Annotated[str | None, typer.Option(help="Configuration of a model of your own (YAML).")] = None
    mirror: Annotated[
        str | None,
        typer.Option(
            envvar="MASKWIRE_MIRROR",
            help="Address of a folder that has the weights under their own names, such as sam2.1_hiera_tiny.pt, "
            "instead of their publisher's.",
        ),
    ] = None
    offline: Annotated[
        bool, typer.Option("--offline", envvar="MASKWIRE_OFFLINE", help="Download nothing: the weights must be here.")
    ] = False
    device: Annotated[
        str,
        typer.Option(
            envvar="MASKWIRE_DEVICE",
            help="auto, cpu, cuda or cuda:N; several separated by commas, or 'all' for all CUDA devices, start an "
            "encoder each, on consecutive ports.",
        ),
    ] = "auto"
    decoders: Annotated[
        int, typer.Option(min=0, max=64, help="Number of decoder processes; they take consecutive ports.")
    ] = 1
    redis_url: Annotated[
        str | None, typer.Option(envvar="MASKWIRE_REDIS_URL", help="Store to use; by default one is started.")
    ] = None
    redis_memory_mb: Annotated[int, typer.Option(min=64, help="Memory of the store that is started, in MiB.")] = 2048
    store_codec: Annotated[
        str,
        typer.Option(envvar="MASKWIRE_STORE_CODEC", help="How embeddings are stored: fp32, fp16, int8, int4 or klt."),
    ] = "fp16"
    cold_tier: Annotated[
        str | None,
        typer.Option(
            envvar="MASKWIRE_COLD_TIER",
            help="Folder, or address such as s3://BUCKET/FOLDER, that keeps embeddings which left the store's memory.",
        ),
    ] = None
    host: Annotated[
        str,
        typer.Option(
            envvar="MASKWIRE_HOST",
            help="Address to listen on, such as 127.0.0.1 or ::1; 0.0.0.0 for all interfaces, or :: for those of IPv6 "
            "as well.",
        ),
    ] = "127.0.0.1"
    encoder_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the first encoder; 0 takes free ports.")
    ] = 50051
    decoder_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Port of the first decoder; by default the one after the encoders'; 0 takes free ports.",
        ),
    ] = None
    trackers: Annotated[
        int, typer.Option(min=0, max=64, help="Number of tracker processes, which follow objects through videos.")
    ] = 1
    tracker_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Port of the first tracker; by default the one after the decoders'; 0 takes free ports.",
        ),
    ] = None
    gateway_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the web page and the HTTP interface; 0 takes a free port.")
    ] = 9001
    gateway: Annotated[bool, typer.Option(help="Start the gateway if it is installed.")] = True
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the servers' logs.")] = False
    as_json: Annotated[bool, typer.Option("--json", help="Print the addresses as one line of JSON when ready.")] = False
