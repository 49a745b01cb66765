"""Options and help of the commands about images."""

from pathlib import Path
from typing import Annotated

import typer

from maskwire.cli.formats import MaskFormat
from maskwire.cli.options import (
    AsJson,
    Decoder,
    Encoder,
    Image,
    ImageId,
    Model,
    Namespace,
    RetryS,
    Stretch,
    box,
    connection,
    point,
)

_Point = Annotated[
    list[tuple] | None,  # type: ignore[type-arg]
    typer.Option("--point", "-p", parser=point, metavar="X,Y", help="A click inside the object. Repeatable."),
]
_Negative = Annotated[
    list[tuple] | None,  # type: ignore[type-arg]
    typer.Option("--negative", "-n", parser=point, metavar="X,Y", help="A click outside of it. Repeatable."),
]
_Box = Annotated[
    list[tuple] | None,  # type: ignore[type-arg]
    typer.Option(
        "--box", "-b", parser=box, metavar="X0,Y0,X1,Y1", help="A box around the object. Several are several objects."
    ),
]


def segment(
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE",
            help="Image files, URLs, '-' for standard input, or names of stored images.",
            show_default=False,
        ),
    ] = None,
    points: _Point = None,
    negative: _Negative = None,
    boxes: _Box = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Prompts for many images: JSON Lines (below) or CSV; docs/cli.md describes both.",
        ),
    ] = None,
    image_id: Annotated[
        str | None, typer.Option(help="Name to store the image under; without IMAGE, the name of a stored image.")
    ] = None,
    model: Model = "",
    stretch: Stretch = "auto",
    every: Annotated[bool, typer.Option("--all", help="All candidate masks instead of the best.")] = False,
    single: Annotated[bool, typer.Option("--single", help="The model's single mask; for unambiguous prompts.")] = False,
    form: Annotated[
        MaskFormat | None,
        typer.Option(
            "--format", "-f", help="What to write; by default what the ending of --output says, else overlay."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write; a folder for several images; '-' for standard output, RLE if no --format is given.",
        ),
    ] = None,
    encoder: Encoder = None,
    decoder: Decoder = None,
    namespace: Namespace = "",
    retry_s: RetryS = 5,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line and image, for programs; masks are RLE.")
    ] = False,
) -> None:
    """Segment objects: by clicks, by a box, by both, or with neither the most prominent one.

    The image is embedded first if it is not stored yet; every later prompt on it is fast.

    Examples:

      maskwire segment photo.jpg --point 500,375 --negative 620,380 -o mask.png

      maskwire segment photo.jpg --box 75,275,1725,850 --box 10,20,300,400 --format overlay

      maskwire segment *.jpg --format yolo -o labels/

      curl -s https://example.org/photo.jpg | maskwire segment - --point 500,375 -o - > mask.json

      maskwire segment --prompts prompts.jsonl --format coco -o coco.json

    A line of prompts.jsonl is an object of an image:

      {"image": "photo.jpg", "box": [75, 275, 1725, 850], "points": [[500, 375]], "labels": [1], "class": "truck"}
    """
    from maskwire.cli.segment import run

    run(
        images or [],
        image_id=image_id,
        model=model,
        stretch=stretch,
        positive=points or [],
        negative=negative or [],
        boxes=boxes or [],
        prompts=prompts,
        every=every,
        multimask=not single,
        form=form,
        output=output,
        connection=connection(encoder, decoder, namespace, retry_s),
        as_json=as_json,
    )


def click(
    image: Image,
    image_id: ImageId = None,
    model: Model = "",
    stretch: Stretch = "auto",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Picture that is written after each click.")
    ] = None,
    encoder: Encoder = None,
    decoder: Decoder = None,
    namespace: Namespace = "",
    retry_s: RetryS = 5,
) -> None:
    """Click an object into shape, in the terminal: X,Y is a click, -X,Y one outside of it; 'help' lists the rest.

    Commands come line by line, from the keyboard or a pipe: undo, redo, box X0,Y0,X1,Y1, clear, new, save FILE, quit.

    Examples:

      maskwire click photo.jpg

      printf '500,375\\n-620,380\\nsave out.png\\n' | maskwire click photo.jpg
    """
    from maskwire.cli.click import run

    run(
        image,
        image_id=image_id,
        model=model,
        stretch=stretch,
        output=output,
        connection=connection(encoder, decoder, namespace, retry_s),
    )


def everything(
    image: Image,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="A .json file for a COCO data set, a .png (or .jpg) file for a picture with every mask in a colour, "
            "'-' for the data set on standard output, or else a folder for all of that and single masks.",
        ),
    ],
    points_per_side: Annotated[int, typer.Option(min=1, max=512, help="Clicks along each side.")] = 32,
    pred_iou_thresh: Annotated[
        float | None, typer.Option(help="Keep masks with a predicted IoU above this; SAM 2: 0.8, demo: 0.35.")
    ] = None,
    stability_score_thresh: Annotated[
        float | None, typer.Option(help="Keep masks at least as stable as this; SAM 2: 0.95, demo: 0.4.")
    ] = None,
    stability_score_offset: Annotated[
        float | None, typer.Option(help="By which the mask threshold is moved for that; 1.")
    ] = None,
    box_nms_thresh: Annotated[
        float | None, typer.Option(help="Masks whose boxes overlap more are the same; 0.7.")
    ] = None,
    crop_n_layers: Annotated[int, typer.Option(min=0, max=4, help="How often the image is cut finer, too.")] = 0,
    min_mask_region_area: Annotated[
        int, typer.Option(min=0, help="Remove holes and islands of at most so many low-resolution pixels.")
    ] = 0,
    image_id: ImageId = None,
    model: Model = "",
    stretch: Stretch = "auto",
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

      maskwire everything photo.jpg -o masks.png --pred-iou-thresh 0.7
    """
    from maskwire.cli.automatic_masks import run

    thresholds = {
        "pred_iou_thresh": pred_iou_thresh,
        "stability_score_thresh": stability_score_thresh,
        "stability_score_offset": stability_score_offset,
        "box_nms_thresh": box_nms_thresh,
    }
    run(
        image,
        image_id=image_id,
        model=model,
        stretch=stretch,
        output=output,
        arguments={
            "points_per_side": points_per_side,
            "crop_n_layers": crop_n_layers,
            "min_mask_region_area": min_mask_region_area,
            **{name: value for name, value in thresholds.items() if value is not None},  # type: ignore[typeddict-item]
        },
        connection=connection(encoder, decoder, namespace, retry_s),
        as_json=as_json,
    )


def embed(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE",
            help="Image files, URLs, folders (searched through and through), '-' for standard input.",
        ),
    ],
    image_id: Annotated[str | None, typer.Option(help="Name for the image; with a single image only.")] = None,
    model: Model = "",
    stretch: Stretch = "auto",
    encoder: Encoder = None,
    namespace: Namespace = "",
    retry_s: RetryS = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line and image.")] = False,
) -> None:
    """Embed images ahead of time, so that the first click on each is fast. What is stored is skipped.

    Examples:

      maskwire embed photo.jpg --image-id photo-1

      maskwire embed photos/ more/*.png
    """
    from maskwire.cli.embed import run

    run(
        paths,
        image_id=image_id,
        model=model,
        stretch=stretch,
        connection={"encoder": encoder, "namespace": namespace, "retry_s": retry_s},
        as_json=as_json,
    )


def images(
    prefix: Annotated[str, typer.Option(help="Only images whose names begin with this.")] = "",
    limit: Annotated[int | None, typer.Option(min=0, help="At most this many.")] = None,
    encoder: Encoder = None,
    namespace: Namespace = "",
    retry_s: RetryS = 5,
    as_json: AsJson = False,
) -> None:
    """List the images that are stored, by name.

    Example:

      maskwire images --prefix holiday/
    """
    from maskwire.cli.stored import list_images

    list_images(
        prefix=prefix,
        limit=limit,
        connection={"encoder": encoder, "namespace": namespace, "retry_s": retry_s},
        as_json=as_json,
    )


def delete(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Names of stored images.")],
    embedding: Annotated[
        bool, typer.Option("--embedding", help="Delete the embeddings, too, for all their names.")
    ] = False,
    encoder: Encoder = None,
    namespace: Namespace = "",
    retry_s: RetryS = 5,
    as_json: AsJson = False,
) -> None:
    """Forget images' names. Embeddings without a name leave the store by themselves, or at once with --embedding.

    Example:

      maskwire delete photo-1 photo-2
    """
    from maskwire.cli import stored

    stored.delete(
        names,
        embedding=embedding,
        connection={"encoder": encoder, "namespace": namespace, "retry_s": retry_s},
        as_json=as_json,
    )
