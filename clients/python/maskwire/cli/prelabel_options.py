"""Options and help texts of `maskwire prelabel` and `maskwire merge-shards`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from maskwire.cli.options import ServerOptions

_Boxes = Annotated[Path, typer.Option("--boxes", help="COCO file with the boxes.")]
_Out = Annotated[
    Path,
    typer.Option("--out", "--output", "-o", help="COCO file to write; the job keeps its journal beside it."),
]
_AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@dataclass(frozen=True, kw_only=True)
class PatientServerOptions(ServerOptions):
    """How to call the servers from a job that nobody waits for."""

    retry_s: Annotated[
        float, typer.Option("--retry-s", min=0, max=60, help="Seconds to keep trying while a server is unavailable.")
    ] = 60


@dataclass(frozen=True, kw_only=True)
class PrelabelOptions:
    """Turn the boxes of a COCO data set into masks, to be corrected by people rather than drawn by them.

    Each annotation with a box and without a segmentation gets a segmentation, its area and a score. All else in the
    data set stays as it is.

    The job can be killed at any time: the same command goes on where it was, and asks for nothing twice. Images that
    failed are tried again then. Ctrl-C finishes the images that are under way.

    Examples:

      maskwire prelabel photos --boxes boxes.json --out masks.json

      maskwire prelabel photos --boxes boxes.json --out masks.json --shard 3/8

      maskwire merge-shards --boxes boxes.json --out masks.json
    """

    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the images.")]
    boxes: _Boxes
    out: _Out
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Do one of N parts, 1/N to N/N, for 'maskwire merge-shards'; '/N' takes I from JOB_COMPLETION_INDEX, "
            "as Kubernetes sets it.",
        ),
    ] = None
    polygons: Annotated[
        bool, typer.Option("--polygons", help="Write polygons, whose union is the mask, instead of RLE.")
    ] = False
    tight_boxes: Annotated[bool, typer.Option("--tight-boxes", help="Replace boxes by those of the masks.")] = False
    replace: Annotated[
        bool, typer.Option("--replace", help="Make masks also for annotations that have a segmentation.")
    ] = False
    model: Annotated[
        str, typer.Option(help="Model to use; by default the encoder's. 'maskwire status' lists them.")
    ] = ""
    stretch: Annotated[
        Literal["auto", "none", "range", "percentile"],
        typer.Option(help="How samples of more than 8 bits are mapped to 8; see docs/reference/pictures.md."),
    ] = "auto"
    servers: PatientServerOptions
    as_json: _AsJson = False


@dataclass(frozen=True, kw_only=True)
class MergeShardsOptions:
    """Merge the shards of a 'maskwire prelabel' job into one COCO file, the same as the undivided job writes.

    Example:

      maskwire merge-shards --boxes boxes.json --out masks.json
    """

    shards: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="SHARD",
            help="What the shards wrote, masks.json.shard-1-of-8 and so on; by default those beside --out.",
            show_default=False,
        ),
    ] = None
    boxes: _Boxes
    out: _Out
    as_json: _AsJson = False
