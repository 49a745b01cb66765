"""The commands with their help texts. The work is in modules that are imported when a command runs."""

from maskwire.cli.dataclass_options import takes
from maskwire.cli.options import (
    ClickOptions,
    DeleteOptions,
    EmbedOptions,
    EverythingOptions,
    ImagesOptions,
    ProfileOptions,
    SegmentOptions,
    StatusOptions,
    UpOptions,
)


@takes(SegmentOptions)
def segment(options: SegmentOptions) -> None:
    """Segment objects by clicks, by a box, by both, or, with neither, the most prominent object.

    The image is embedded first if it is not stored yet; later prompts on it are fast.

    Examples:

      maskwire segment photo.jpg --point 500,375 --negative 620,380 -o mask.png

      maskwire segment photo.jpg --box 75,275,1725,850 --box 10,20,300,400 --format overlay

      maskwire segment *.jpg --format yolo -o labels/

      curl -s https://example.org/photo.jpg | maskwire segment - --point 500,375 -o - > mask.json

      maskwire segment --prompts prompts.jsonl --format coco -o coco.json

    Each line of prompts.jsonl is one object of an image:

      {"image": "photo.jpg", "box": [75, 275, 1725, 850], "points": [[500, 375]], "labels": [1], "class": "truck"}
    """
    from maskwire.cli.segment import segment_images

    segment_images(options)


@takes(ClickOptions)
def click(options: ClickOptions) -> None:
    """Segment an object interactively in the terminal: X,Y clicks inside it, -X,Y outside it; 'help' lists the rest.

    Commands are read by line from the keyboard or a pipe: undo, redo, box X0,Y0,X1,Y1, clear, new, save FILE, quit.

    Examples:

      maskwire click photo.jpg

      printf '500,375\\n-620,380\\nsave out.png\\n' | maskwire click photo.jpg
    """
    from maskwire.cli.click import click_in_terminal

    click_in_terminal(options)


@takes(EverythingOptions)
def everything(options: EverythingOptions) -> None:
    """Segment everything in an image: all masks that SAM 2's automatic mask generator finds.

    Examples:

      maskwire everything photo.jpg -o masks

      maskwire everything photo.jpg -o coco.json --points-per-side 16 --crop-n-layers 1

      maskwire everything photo.jpg -o masks.png --pred-iou-thresh 0.7
    """
    from maskwire.cli.automatic_masks import segment_everything

    segment_everything(options)


@takes(EmbedOptions)
def embed(options: EmbedOptions) -> None:
    """Embed images ahead of time, so that the first click on each is fast. Images that are stored already are skipped.

    Examples:

      maskwire embed photo.jpg --image-id photo-1

      maskwire embed photos/ more/*.png
    """
    from maskwire.cli.embed import embed_images

    embed_images(options)


@takes(ImagesOptions)
def images(options: ImagesOptions) -> None:
    """List the stored images by name.

    Example:

      maskwire images --prefix holiday/
    """
    from maskwire.cli.stored import list_images

    list_images(options)


@takes(DeleteOptions)
def delete(options: DeleteOptions) -> None:
    """Delete names of images. Embeddings without a name expire by themselves; --embedding deletes them at once.

    Example:

      maskwire delete photo-1 photo-2
    """
    from maskwire.cli.stored import delete_images

    delete_images(options)


@takes(ProfileOptions)
def profile(options: ProfileOptions) -> None:
    """Show how long each stage of embedding an image and of clicking on it takes in your deployment."""
    from maskwire.cli.profile import profile_stages

    profile_stages(options)


@takes(StatusOptions)
def status(options: StatusOptions) -> None:
    """Show which servers answer and which models they serve. The exit code is 1 if one does not serve."""
    from maskwire.cli.status import show_status

    show_status(options)


@takes(UpOptions)
def up(options: UpOptions) -> None:
    """Start a store, an encoder and decoders on this machine, and keep them running until Ctrl-C.

    Other settings of the servers are environment variables: see python -m maskwire_encoder --help, and
    python -m maskwire_decoder --help.
    """
    from maskwire.cli.up import start_servers

    start_servers(options)
