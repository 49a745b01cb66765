"""Options of `maskwire convert`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

DataSetForm = Literal["coco", "cvat", "label-studio"]
NewForm = Literal["coco", "coco-uncompressed", "labelme", "yolo", "voc"]
Shapes = Literal["auto", "polygons", "mask"]


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """Convert a data set: from COCO, CVAT or Label Studio to COCO, labelme, YOLO or Pascal VOC. No server is needed.

    Examples:

      maskwire convert annotations.xml --to coco -o boxes.json

      maskwire convert masks.json --to yolo -o dataset/
    """

    data_set: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="COCO's JSON; CVAT's export 'CVAT for images 1.1' (XML or zip); or Label Studio's export 'JSON'.",
        ),
    ]
    to: Annotated[
        NewForm,
        typer.Option("--to", "-t", help="Format to write. coco-uncompressed is for supervision before 0.30."),
    ] = "coco"
    output: Annotated[Path, typer.Option("--output", "-o", help="A .json file for COCO, a folder for the others.")]
    source: Annotated[
        DataSetForm | None, typer.Option("--from", help="Format of the file, if its beginning does not tell.")
    ] = None
    simplify_px: Annotated[
        float, typer.Option(min=0, help="Largest distance of removed vertices from polygons, in pixels.")
    ] = 1
    shapes: Annotated[
        Shapes, typer.Option(help="labelme: polygons, masks, or masks for objects with holes (auto).")
    ] = "auto"
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False
