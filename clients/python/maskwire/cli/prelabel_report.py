"""What `maskwire prelabel` and `maskwire merge-shards` print."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from maskwire.prelabelling.boxes_file import ImageBoxes
from maskwire.prelabelling.journal import State


def describe_line(line: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[str]:
    """Says what went wrong with an image, by its line of the journal."""
    if "error" in line:
        yield f"{line['file_name']}: error: {line['error']['message']}"
    for each in line.get("skipped", ()):
        annotation_id = document["annotations"][each["annotation"]].get("id")
        yield f"{line['file_name']}: annotation {annotation_id} stays as it is: {each['reason']}"


def print_summary(images: Sequence[ImageBoxes], states: Sequence[State], more: Mapping[str, Any], as_json: bool) -> int:
    """Prints what came of a job. Returns the number of images that failed.

    Args:
        images: The job's images.
        states: What the journals say.
        more: Further fields of the JSON object; "output" is the path of what was written.
        as_json: Whether to print a JSON object.
    """
    masks = {image: number for state in states for image, number in state.masks.items()}
    skipped = [each for state in states for several in state.skipped.values() for each in several]
    failed = sorted((line for state in states for line in state.failed.values()), key=lambda line: line["image"])
    damaged = sum(state.damaged for state in states)
    if as_json:
        summary = {
            **more,
            "images": len(images),
            "done": len(masks),
            "masks": sum(masks.values()),
            "skipped": len(skipped),
            "failed": [{"image": line["file_name"], "error": line["error"]} for line in failed],
        }
        print(json.dumps(summary))
    else:
        parts = [f"{sum(masks.values())} masks of {len(masks)} images"]
        if more.get("done_before"):
            parts[0] += f" ({more['done_before']} done before)"
        if skipped:
            parts.append(f"{len(skipped)} boxes without a mask")
        if failed:
            parts.append(f"{len(failed)} images failed")
        print(f"{more['output']}: {', '.join(parts)}")
    if damaged:
        print(f"{damaged} damaged lines of the journal were left out; their images were asked again", file=sys.stderr)
    if failed:
        print(
            f"error: {len(failed)} of {len(images)} images failed; the same command tries them again", file=sys.stderr
        )
    return len(failed)
