"""The commands' options and help."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from maskwire.cli.formats import MaskFormat

app = typer.Typer(
    help="""SAM 2 as a service: encode an image once, click on it anywhere.

    Start the servers in one terminal:   maskwire up

    and click in another:                maskwire segment photo.jpg --point 500,375 -o mask.png

    Coordinates are pixels of the image as a viewer shows it: x to the right, y down, from the top left corner.
    """,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def connection(
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
) -> None:
    """Makes the options of all commands what the environment says, which clients and started servers read."""
    chosen = {
        "MASKWIRE_TOKEN": token,
        "MASKWIRE_TLS": "1" if tls else None,
        "MASKWIRE_TLS_CA": tls_ca,
        "MASKWIRE_TLS_CLIENT_CERT": tls_client_cert,
        "MASKWIRE_TLS_CLIENT_KEY": tls_client_key,
    }
    os.environ.update({name: value for name, value in chosen.items() if value is not None})


Encoder = Annotated[
    str | None,
    typer.Option("--encoder", envvar="MASKWIRE_ENCODER", help="Encoder address; localhost:50051 if not given."),
]
Decoder = Annotated[
    str | None,
    typer.Option(
        "--decoder",
        envvar="MASKWIRE_DECODER",
        help="Decoder address, or several with commas; localhost:50052 if not given.",
    ),
]
Namespace = Annotated[str, typer.Option(envvar="MASKWIRE_NAMESPACE", help="Tenant; images of others are out of sight.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")]
RetryS = Annotated[float, typer.Option("--retry-s", min=0, help="Seconds to keep trying while a server is away.")]


class Kind(StrEnum):
    """Sorts of servers."""

    ENCODER = "encoder"
    DECODER = "decoder"


def _numbers(text: str, count: int, form: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != count:
        raise typer.BadParameter(f"{text!r} is not {form}, such as {'500,375' if count == 2 else '75,275,1725,850'}")
    return numbers


def _point(text: str) -> tuple[float, ...]:
    return _numbers(text, 2, "X,Y in pixels")


def _box(text: str) -> tuple[float, ...]:
    return _numbers(text, 4, "X0,Y0,X1,Y1 in pixels")


@app.command()
def segment(
    image: Annotated[str, typer.Argument(help="Image file, or the id of an embedded image.")],
    point: Annotated[
        list[tuple] | None,  # type: ignore[type-arg]
        typer.Option("--point", "-p", parser=_point, metavar="X,Y", help="A click inside the object. Repeatable."),
    ] = None,
    negative: Annotated[
        list[tuple] | None,  # type: ignore[type-arg]
        typer.Option("--negative", "-n", parser=_point, metavar="X,Y", help="A click outside of it. Repeatable."),
    ] = None,
    box: Annotated[
        tuple | None,  # type: ignore[type-arg]
        typer.Option("--box", "-b", parser=_box, metavar="X0,Y0,X1,Y1", help="A box around the object."),
    ] = None,
    image_id: Annotated[str | None, typer.Option(help="Name to embed the image under.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All candidate masks instead of the best.")] = False,
    single: Annotated[bool, typer.Option("--single", help="The model's single mask; for unambiguous prompts.")] = False,
    form: Annotated[
        MaskFormat | None,
        typer.Option(
            "--format", "-f", help="What to write; by default what the ending of --output says, else overlay."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; '-' for standard output (rle and polygon).")
    ] = None,
    encoder: Encoder = None,
    decoder: Decoder = None,
    namespace: Namespace = "",
    retry_s: RetryS = 5,
    as_json: AsJson = False,
) -> None:
    """Segment an object: by clicks, by a box, by both, or with neither the most prominent one.

    The image is embedded first if it is not stored yet; every later prompt on it is fast.

    Examples:

      maskwire segment photo.jpg --point 500,375 --negative 620,380 -o mask.png

      maskwire segment photo.jpg --box 75,275,1725,850 --format overlay -o overlay.png

      maskwire segment photo.jpg --point 500,375 --format rle -o -
    """
    from maskwire.cli.segment import run

    run(
        image,
        image_id=image_id,
        positive=point or [],
        negative=negative or [],
        box=box,
        every=every,
        multimask=not single,
        form=form,
        output=output,
        connection={"encoder": encoder, "decoder": decoder, "namespace": namespace, "retry_s": retry_s},
        as_json=as_json,
    )


@app.command()
def click(
    image: Annotated[str, typer.Argument(help="Image file, or the id of an embedded image.")],
    image_id: Annotated[str | None, typer.Option(help="Name to embed the image under.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Picture that is written after each click.")
    ] = None,
    encoder: Encoder = None,
    decoder: Decoder = None,
    namespace: Namespace = "",
    retry_s: RetryS = 5,
) -> None:
    """Click an object into shape, in the terminal: X,Y is a click, -X,Y one outside of it; undo, redo, box, new, save.

    Commands come line by line, from the keyboard or a pipe.
    """
    from maskwire.cli.click import run

    connection = {"encoder": encoder, "decoder": decoder, "namespace": namespace, "retry_s": retry_s}
    run(image, image_id=image_id, output=output, connection=connection)


@app.command()
def everything(
    image: Annotated[str, typer.Argument(help="Image file, or the id of an embedded image.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder for masks, overlay.png and coco.json; or a .json file."),
    ],
    points_per_side: Annotated[int, typer.Option(min=1, max=512, help="Clicks along each side.")] = 32,
    pred_iou_thresh: Annotated[float, typer.Option(help="Keep masks with a predicted IoU above this.")] = 0.8,
    stability_score_thresh: Annotated[float, typer.Option(help="Keep masks at least as stable as this.")] = 0.95,
    stability_score_offset: Annotated[float, typer.Option(help="By which the threshold is moved for that.")] = 1.0,
    box_nms_thresh: Annotated[float, typer.Option(help="Masks whose boxes overlap more are the same.")] = 0.7,
    crop_n_layers: Annotated[int, typer.Option(min=0, max=4, help="How often the image is cut finer, too.")] = 0,
    min_mask_region_area: Annotated[
        int, typer.Option(min=0, help="Remove holes and islands of at most so many low-resolution pixels.")
    ] = 0,
    image_id: Annotated[str | None, typer.Option(help="Name to embed the image under.")] = None,
    encoder: Encoder = None,
    decoder: Decoder = None,
    namespace: Namespace = "",
    retry_s: RetryS = 5,
    as_json: AsJson = False,
) -> None:
    """Segment everything in an image: all masks that SAM 2's automatic mask generator finds.

    Examples:

      maskwire everything photo.jpg -o masks

      maskwire everything photo.jpg -o coco.json --points-per-side 16 --crop-n-layers 1
    """
    from maskwire.cli.everything import run

    run(
        image,
        image_id=image_id,
        output=output,
        arguments={
            "points_per_side": points_per_side,
            "pred_iou_thresh": pred_iou_thresh,
            "stability_score_thresh": stability_score_thresh,
            "stability_score_offset": stability_score_offset,
            "box_nms_thresh": box_nms_thresh,
            "crop_n_layers": crop_n_layers,
            "min_mask_region_area": min_mask_region_area,
        },
        connection={"encoder": encoder, "decoder": decoder, "namespace": namespace, "retry_s": retry_s},
        as_json=as_json,
    )


@app.command()
def embed(
    paths: Annotated[list[Path], typer.Argument(help="Image files and folders (searched through and through).")],
    image_id: Annotated[str | None, typer.Option(help="Name for the image; with a single file only.")] = None,
    model: Annotated[str, typer.Option(help="Model; the encoder's default if not given.")] = "",
    encoder: Encoder = None,
    namespace: Namespace = "",
    retry_s: RetryS = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line and image.")] = False,
) -> None:
    """Embed images ahead of time, so that the first click on each is fast. What is stored is skipped."""
    from maskwire.cli.embed import run

    connection = {"encoder": encoder, "namespace": namespace, "retry_s": retry_s}
    run(paths, image_id=image_id, model=model, connection=connection, as_json=as_json)


@app.command()
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

    connection = {"encoder": encoder, "decoder": decoder, "namespace": namespace, "retry_s": retry_s}
    run(image, clicks=clicks, connection=connection, as_json=as_json)


@app.command()
def status(
    kind: Annotated[Kind | None, typer.Argument(help="Ask only these servers; all if not given.")] = None,
    encoder: Encoder = None,
    decoder: Decoder = None,
    as_json: AsJson = False,
) -> None:
    """Show which servers answer, and which models they serve. Exit code 1 if one does not."""
    from maskwire.cli.status import run

    run(kind, encoder, decoder, as_json=as_json)


@app.command()
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
