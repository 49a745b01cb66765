"""Turns the boxes of a COCO data set into masks, to be corrected by people rather than drawn by them.

    python examples/prelabel_coco.py annotations.json images/ masks.json

Annotations that have a segmentation already are left alone. Needs running services (maskwire up).
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maskwire import Client, MaskwireError, Prompt

_PROMPTS_AT_ONCE = 64  # of one image: a request takes at most 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="COCO file with boxes")
    parser.add_argument("images", type=Path, help="folder of its images")
    parser.add_argument("output", type=Path, help="COCO file to write")
    arguments = parser.parse_args()
    for path in (arguments.dataset, arguments.images):
        if not path.exists():
            sys.exit(f"error: no such file: {path}")
    dataset = json.loads(arguments.dataset.read_text())
    done, failed = prelabel(dataset, arguments.images)
    arguments.output.write_text(json.dumps(dataset) + "\n")
    print(f"{done} masks made, {failed} images failed: {arguments.output}")
    if failed:
        sys.exit(1)


def prelabel(dataset: dict[str, Any], folder: Path) -> tuple[int, int]:
    """Adds segmentation, area and score to annotations with a box. Returns the masks made, and requests that failed."""
    by_image = defaultdict(list)
    for annotation in dataset["annotations"]:
        if annotation.get("bbox") and not annotation.get("segmentation"):
            by_image[annotation["image_id"]].append(annotation)
    annotations = {annotation["id"]: annotation for annotation in dataset["annotations"]}

    def requests() -> Iterator[tuple[Path, list[Prompt]]]:
        for image in dataset["images"]:
            prompts = [
                Prompt(box=_corners(annotation["bbox"], image), prompt_id=str(annotation["id"]))
                for annotation in by_image[image["id"]]
            ]
            for start in range(0, len(prompts), _PROMPTS_AT_ONCE):
                yield folder / image["file_name"], prompts[start : start + _PROMPTS_AT_ONCE]

    done = failed = 0
    with Client() as client:
        for (path, _), results in client.segment_many(requests(), multimask=False, errors="yield"):
            if isinstance(results, MaskwireError):
                print(f"{path}: error: {results}", file=sys.stderr)
                failed += 1
                continue
            for result in results:
                made = result.to_coco()
                annotation = annotations[int(result.prompt_id)]
                annotation.update({name: made[name] for name in ("segmentation", "area", "score")})
            done += len(results)
            print(f"{path}: {len(results)} masks", flush=True)
    return done, failed


def _corners(box: list[float], image: dict[str, Any]) -> tuple[float, float, float, float]:
    """COCO's x, y, width, height as corners within the image: boxes in data sets often end a little outside."""
    x, y, width, height = box
    return max(0, x), max(0, y), min(image["width"], x + width), min(image["height"], y + height)


if __name__ == "__main__":
    main()
