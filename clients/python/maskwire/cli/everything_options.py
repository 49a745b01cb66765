"""Options and help texts of `maskwire everything`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from maskwire.cli.options import AsJson, EmbeddingOptions, ImageArgument, LargeTiffOptions, ServerOptions


@dataclass(frozen=True, kw_only=True)
class MaskGenerationOptions:
    """sam2's parameters of automatic mask generation."""

    points_per_side: Annotated[int, typer.Option(min=1, max=512, help="Clicks along each side of the grid.")] = 32
    pred_iou_thresh: Annotated[
        float | None, typer.Option(help="Keep masks with a predicted IoU above this; SAM 2: 0.8, demo: 0.35.")
    ] = None
    stability_score_thresh: Annotated[
        float | None, typer.Option(help="Keep masks at least this stable; SAM 2: 0.95, demo: 0.4.")
    ] = None
    stability_score_offset: Annotated[
        float | None, typer.Option(help="How far the mask threshold is moved to measure stability; 1.")
    ] = None
    box_nms_thresh: Annotated[
        float | None, typer.Option(help="Masks whose boxes have a higher IoU are duplicates; 0.7.")
    ] = None
    crop_n_layers: Annotated[
        int, typer.Option(min=0, max=4, help="Layers of crops to search too; layer i has 4^i crops.")
    ] = 0
    min_mask_region_area: Annotated[
        int, typer.Option(min=0, help="Remove holes and islands of at most this many low-resolution pixels.")
    ] = 0


@dataclass(frozen=True, kw_only=True)
class EverythingOptions:
    """Segment everything in an image: all masks that SAM 2's automatic mask generator finds.

    Examples:

      maskwire everything photo.jpg -o masks

      maskwire everything photo.jpg -o coco.json --points-per-side 16 --crop-n-layers 1

      maskwire everything photo.jpg -o masks.png --pred-iou-thresh 0.7

      maskwire everything orthophoto.tif --large-tiff --tiles --journal orthophoto.journal -o coco.json

    The last one may take hours. Ctrl-C, or a failure, loses nothing but the tile under way: the same command goes on.
    """

    image: ImageArgument
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="A .json file for a COCO data set; a .png, .jpg or .webp file for a picture with every mask in a "
            "colour of its own; '-' for the data set on standard output; or a folder for both and a file per mask.",
        ),
    ]
    parameters: MaskGenerationOptions
    tiles: Annotated[
        bool,
        typer.Option(
            "--tiles", help="Look at the picture tile by tile, at several scales, for small objects of large pictures."
        ),
    ] = False
    tile_px: Annotated[
        int | None,
        typer.Option(min=128, help="With --tiles, the side of the smallest tiles in pixels.", show_default="1024"),
    ] = None
    journal: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --tiles, note here what is done; the same command goes on from there if it ended.",
        ),
    ] = None
    embedding: EmbeddingOptions
    large: LargeTiffOptions
    servers: ServerOptions
    as_json: AsJson = False
