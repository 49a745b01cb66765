"""The commands `maskwire images` and `maskwire delete`."""

import json
import sys
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Column, Table

from maskwire.cli.options import DeleteOptions, ImagesOptions

_PIPED_WIDTH = 400  # columns, where the reader is a program: room for the longest names


def list_images(options: ImagesOptions) -> None:
    """Prints the stored images of a namespace, sorted by name."""
    with options.servers.client() as client:
        images = sorted(client.images(options.prefix, limit=options.limit), key=lambda image: image.image_id)
    if options.as_json:
        names = ("image_id", "width", "height", "model", "content_key", "stored_bytes")
        described = [
            {name: getattr(image, name) for name in names} | {"expires_at": image.expires_at.isoformat()}
            for image in images
        ]
        print(json.dumps({"images": described}))
        return
    if images:
        # Names are given to other commands, so they are shown whole: wrapped in a narrow terminal, never shortened.
        table = Table(Column("image", overflow="fold"), "size", "model", "stored", "expires in", box=None)
        for image in images:
            size, stored = f"{image.width}x{image.height}", f"{image.stored_bytes / (1 << 20):.1f} MiB"
            table.add_row(image.image_id, size, image.model, stored, _time_left(image.expires_at))
        Console(highlight=False, width=None if sys.stdout.isatty() else _PIPED_WIDTH).print(table)
    beginning = f" whose names begin with {options.prefix!r}" if options.prefix else ""
    print(f"{len(images)} images{beginning}", file=sys.stderr)


def delete_images(options: DeleteOptions) -> None:
    """Deletes names of images; exits with 1 if one does not exist."""
    with options.servers.client() as client:
        existed = {name: client.delete(name, embedding=options.embedding) for name in options.names}
    if options.as_json:
        print(json.dumps({"deleted": existed}))
    for name, was_there in existed.items():
        if not was_there:
            print(f"error: no image named {name!r} is stored; see 'maskwire images'", file=sys.stderr)
        elif not options.as_json:
            print(f"{name}: deleted")
    if not all(existed.values()):
        sys.exit(1)


def _time_left(expires_at: datetime) -> str:
    minutes = max(0, int((expires_at - datetime.now(UTC)).total_seconds() // 60))
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
