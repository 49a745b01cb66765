"""Options and help texts of the commands. Groups that several commands share are dataclasses of their own."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from maskwire.cli.coordinates import parse_bands, parse_box, parse_levels, parse_point, parse_region

if TYPE_CHECKING:
    from maskwire.client import Client


MaskFormat = Literal["png", "rle", "polygon", "overlay", "npz", "coco", "labelme", "yolo"]
"""Output formats of `maskwire segment`."""


ImageArgument = Annotated[
    str,
    typer.Argument(metavar="IMAGE", help="Image file, URL, '-' for standard input, or the name of a stored image."),
]
_Encoder = Annotated[
    str | None,
    typer.Option(
        envvar="MASKWIRE_ENCODER",
        help="Encoder address; by default that of the running 'maskwire up', else localhost:50051.",
    ),
]
_Decoder = Annotated[
    str | None,
    typer.Option(
        envvar="MASKWIRE_DECODER",
        help="Decoder address, or several separated by commas; by default those of the running 'maskwire up', else "
        "localhost:50052.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@dataclass(frozen=True, kw_only=True)
class EncoderOptions:
    """How to call an encoder."""

    encoder: _Encoder = None
    namespace: Annotated[
        str, typer.Option(envvar="MASKWIRE_NAMESPACE", help="Tenant; images of other tenants are not visible.")
    ] = ""
    retry_s: Annotated[
        float, typer.Option("--retry-s", min=0, help="Seconds to keep trying while a server is unavailable.")
    ] = 5

    def client(self) -> "Client":
        """Makes a client with these options."""
        from maskwire.client import Client  # imported late: it takes longer than to print a help text

        return Client(**asdict(self))


@dataclass(frozen=True, kw_only=True)
class ServerOptions(EncoderOptions):
    """How to call an encoder and decoders."""

    decoder: _Decoder = None


@dataclass(frozen=True, kw_only=True)
class EmbeddingOptions:
    """How an image is embedded."""

    image_id: Annotated[str | None, typer.Option(help="Name to store the image under; for a single image.")] = None
    model: Annotated[
        str,
        typer.Option(help="Model to embed the image with; by default the encoder's. 'maskwire status' lists them."),
    ] = ""
    stretch: Annotated[
        Literal["auto", "none", "range", "percentile"],
        typer.Option(help="How samples of more than 8 bits are mapped to 8; see docs/reference/pictures.md."),
    ] = "auto"


@dataclass(frozen=True, kw_only=True)
class LargeTiffOptions:
    """How a TIFF of any size is read; the defaults are for every other picture."""

    large_tiff: Annotated[
        bool,
        typer.Option(
            "--large-tiff",
            help="Read the image, a TIFF, by windows: for files larger than memory, or than the encoder accepts.",
        ),
    ] = False
    bands: Annotated[
        tuple | None,  # type: ignore[type-arg]
        typer.Option(
            parser=parse_bands,
            metavar="R,G,B|GREY",
            help="With --large-tiff, which bands are shown, from 0; by default the first three, or the first.",
        ),
    ] = None
    levels: Annotated[
        tuple | None,  # type: ignore[type-arg]
        typer.Option(
            parser=parse_levels,
            metavar="BLACK,WHITE",
            help="With --large-tiff, the two values that become black and white, in place of --stretch.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class SegmentOptions:
    """Segment objects by clicks, by a box, by both, or, with neither, the most prominent object.

    The image is embedded first if it is not stored yet; later prompts on it are fast.

    Examples:

      maskwire segment photo.jpg --point 500,375 --negative 620,380 -o mask.png

      maskwire segment photo.jpg --box 75,275,1725,850 --box 10,20,300,400 --format overlay

      maskwire segment *.jpg --format yolo -o labels/

      curl -s https://example.org/photo.jpg | maskwire segment - --point 500,375 -o - > mask.json

      maskwire segment --prompts prompts.jsonl --format coco -o coco.json

      maskwire segment slide.tif --large-tiff --point 51200,20480 --region auto -o mask.json

    Each line of prompts.jsonl is one object of an image:

      {"image": "photo.jpg", "box": [75, 275, 1725, 850], "points": [[500, 375]], "labels": [1], "class": "truck"}
    """

    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE",
            help="Image files, URLs, '-' for standard input, or names of stored images. To give a stored image whose "
            "name looks like a file's, leave IMAGE out and use --image-id.",
            show_default=False,
        ),
    ] = None
    points: Annotated[
        list[tuple] | None,  # type: ignore[type-arg]
        typer.Option("--point", "-p", parser=parse_point, metavar="X,Y", help="A click inside the object. Repeatable."),
    ] = None
    negative: Annotated[
        list[tuple] | None,  # type: ignore[type-arg]
        typer.Option("--negative", "-n", parser=parse_point, metavar="X,Y", help="A click outside it. Repeatable."),
    ] = None
    boxes: Annotated[
        list[tuple] | None,  # type: ignore[type-arg]
        typer.Option(
            "--box",
            "-b",
            parser=parse_box,
            metavar="X0,Y0,X1,Y1",
            help="A box around the object. Repeatable; each box is an object of its own.",
        ),
    ] = None
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Prompts for many images: JSON Lines (below) or CSV; docs/reference/command-line.md describes both.",
        ),
    ] = None
    embedding: EmbeddingOptions
    large: LargeTiffOptions
    region: Annotated[
        tuple | None,  # type: ignore[type-arg]
        typer.Option(
            parser=parse_region,
            metavar="auto|X0,Y0,X1,Y1",
            help="Look at this part of the image alone, at the model's full resolution, for small objects of large "
            "pictures; 'auto' chooses one around each object.",
        ),
    ] = None
    every: Annotated[bool, typer.Option("--all", help="Write all candidate masks instead of the best.")] = False
    single: Annotated[bool, typer.Option("--single", help="Use the model's single mask, for unambiguous prompts.")] = (
        False
    )
    form: Annotated[
        MaskFormat | None,
        typer.Option("--format", "-f", help="Output format; by default that of --output's ending, else overlay."),
    ] = None
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write; a folder for several images; '-' for standard output, RLE unless --format is given.",
        ),
    ] = None
    servers: ServerOptions
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per image; masks are RLE.")] = False


@dataclass(frozen=True, kw_only=True)
class ClickOptions:
    """Segment an object interactively in the terminal: X,Y clicks inside it, -X,Y outside it; 'help' lists the rest.

    Commands are read by line from the keyboard or a pipe: undo, redo, box X0,Y0,X1,Y1, clear, new, save FILE, quit.

    Examples:

      maskwire click photo.jpg

      printf '500,375\\n-620,380\\nsave out.png\\n' | maskwire click photo.jpg
    """

    image: ImageArgument
    embedding: EmbeddingOptions
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Overlay picture to write after each click.")
    ] = None
    servers: ServerOptions


@dataclass(frozen=True, kw_only=True)
class EmbedOptions:
    """Embed images ahead of time, so that the first click on each is fast. Images that are stored already are skipped.

    Examples:

      maskwire embed photo.jpg --image-id photo-1

      maskwire embed photos/ more/*.png

      maskwire embed orthophoto.tif --large-tiff --bands 3,2,1
    """

    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE", help="Image files, URLs, folders (searched recursively), '-' for standard input."
        ),
    ]
    embedding: EmbeddingOptions
    large: LargeTiffOptions
    tiles: Annotated[
        bool, typer.Option("--tiles", help="Also embed the tiles in which 'everything --tiles' looks at an image.")
    ] = False
    keep_source: Annotated[
        bool,
        typer.Option("--keep-source", help="Have the encoder keep the files, too, for regions of the stored images."),
    ] = False
    servers: EncoderOptions
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per image, each on a line.")] = False


@dataclass(frozen=True, kw_only=True)
class ImagesOptions:
    """List the stored images by name.

    Example:

      maskwire images --prefix holiday/
    """

    prefix: Annotated[str, typer.Option(help="Only images whose names begin with this.")] = ""
    limit: Annotated[int | None, typer.Option(min=0, help="Largest number of images to list.")] = None
    servers: EncoderOptions
    as_json: AsJson = False


@dataclass(frozen=True, kw_only=True)
class DeleteOptions:
    """Delete names of images. Embeddings without a name expire by themselves; --embedding deletes them at once.

    Example:

      maskwire delete photo-1 photo-2
    """

    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Names of stored images.")]
    embedding: Annotated[
        bool, typer.Option("--embedding", help="Delete the embeddings as well, also for their other names.")
    ] = False
    servers: EncoderOptions
    as_json: AsJson = False


@dataclass(frozen=True, kw_only=True)
class ProfileOptions:
    """Show how long each stage of embedding an image and of clicking on it takes in your deployment."""

    image: Annotated[str, typer.Argument(help="Image file.")]
    clicks: Annotated[
        int, typer.Option("--clicks", "-c", min=1, help="Number of warm clicks to take the median of.")
    ] = 50
    servers: ServerOptions
    as_json: AsJson = False


@dataclass(frozen=True, kw_only=True)
class StatusOptions:
    """Show which servers answer and which models they serve. The exit code is 1 if one does not serve."""

    kind: Annotated[
        Literal["encoder", "decoder"] | None, typer.Argument(help="Ask only these servers; all by default.")
    ] = None
    encoder: _Encoder = None
    decoder: _Decoder = None
    as_json: AsJson = False
