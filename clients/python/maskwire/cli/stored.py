"""maskwire images, maskwire delete"""

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from maskwire.client import Client


def list_images(*, prefix: str, limit: int | None, connection: dict[str, Any], as_json: bool) -> None:
    """Prints the stored images of a namespace, by name."""
    with Client(**connection) as client:
        images = sorted(client.images(prefix, limit=limit), key=lambda image: image.image_id)
    if as_json:
        described = [
            {
                "image_id": image.image_id,
                "width": image.width,
                "height": image.height,
                "model": image.model,
                "content_key": image.content_key,
                "stored_bytes": image.stored_bytes,
                "expires_at": image.expires_at.isoformat(),
            }
            for image in images
        ]
        print(json.dumps({"images": described}))
        return
    if images:
        table = Table("image", "size", "model", "stored", "kept for", box=None)
        for image in images:
            size, stored = f"{image.width}x{image.height}", f"{image.stored_bytes / (1 << 20):.1f} MiB"
            table.add_row(image.image_id, size, image.model, stored, _left(image.expires_at))
        Console(highlight=False).print(table)
    beginning = f" whose names begin with {prefix!r}" if prefix else ""
    print(f"{len(images)} images{beginning}", file=sys.stderr)


def delete(names: Sequence[str], *, embedding: bool, connection: dict[str, Any], as_json: bool) -> None:
    """Forgets images' names; exits with 1 if one was not there."""
    with Client(**connection) as client:
        existed = {name: client.delete(name, embedding=embedding) for name in names}
    if as_json:
        print(json.dumps({"deleted": existed}))
    for name, was_there in existed.items():
        if not was_there:
            print(f"error: no image named {name!r} is stored; see 'maskwire images'", file=sys.stderr)
        elif not as_json:
            print(f"{name}: deleted")
    if not all(existed.values()):
        sys.exit(1)


def _left(expires_at: datetime) -> str:
    minutes = max(0, int((expires_at - datetime.now(UTC)).total_seconds() // 60))
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
