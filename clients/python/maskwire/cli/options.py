"""Options that several commands share."""

from enum import StrEnum
from typing import Annotated, Any

import typer

Image = Annotated[
    str,
    typer.Argument(metavar="IMAGE", help="Image file, URL, '-' for standard input, or the name of a stored image."),
]
ImageId = Annotated[str | None, typer.Option(help="Name to store the image under.")]
Model = Annotated[
    str, typer.Option(help="Model to embed the image with; the encoder's default if not given. See 'maskwire status'.")
]
Stretch = Annotated[
    str,
    typer.Option(
        help="How samples of more than 8 bits are mapped to 8: auto, none, range or percentile; see docs/pictures.md."
    ),
]
Encoder = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        envvar="MASKWIRE_ENCODER",
        help="Encoder address; if not given, that of the running 'maskwire up', else localhost:50051.",
    ),
]
Decoder = Annotated[
    str | None,
    typer.Option(
        "--decoder",
        envvar="MASKWIRE_DECODER",
        help="Decoder address, or several with commas; if not given, those of the running 'maskwire up', else "
        "localhost:50052.",
    ),
]
Namespace = Annotated[str, typer.Option(envvar="MASKWIRE_NAMESPACE", help="Tenant; images of others are out of sight.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")]
RetryS = Annotated[float, typer.Option("--retry-s", min=0, help="Seconds to keep trying while a server is away.")]


class Kind(StrEnum):
    """Sorts of servers."""

    ENCODER = "encoder"
    DECODER = "decoder"


def connection(encoder: str | None, decoder: str | None, namespace: str, retry_s: float) -> dict[str, Any]:
    """The options as arguments of `Client`."""
    return {"encoder": encoder, "decoder": decoder, "namespace": namespace, "retry_s": retry_s}


def point(text: str) -> tuple[float, ...]:
    """X,Y as numbers; for typer's `parser`."""
    return _numbers(text, 2, "X,Y in pixels, such as 500,375")


def box(text: str) -> tuple[float, ...]:
    """X0,Y0,X1,Y1 as numbers; for typer's `parser`."""
    return _numbers(text, 4, "X0,Y0,X1,Y1 in pixels, such as 75,275,1725,850")


def _numbers(text: str, count: int, form: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != count:
        raise typer.BadParameter(f"{text!r} is not {form}")
    return numbers
