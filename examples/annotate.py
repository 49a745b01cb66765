"""Segments an object in each image of a folder, with types throughout: `mypy --strict` passes.

    python examples/annotate.py images/ --box 75,50,500,380 -o masks.json

Writes a COCO data set. Needs running services (maskwire up).
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from maskwire import AsyncClient, Client, EmbeddedImage, InvalidRequest, MaskwireError, Prompt, Result
from numpy.typing import NDArray

_ENDINGS = (".jpg", ".jpeg", ".png", ".webp")


def segment_folder(client: Client, folder: Path, box: tuple[float, float, float, float]) -> dict[str, Any]:
    """Segments what a box surrounds in every image of a folder; what fails is told and left out."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _ENDINGS)
    dataset: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "object"}]}
    for (path, _), outcome in client.segment_many(((path, Prompt(box=box)) for path in paths), errors="yield"):
        if isinstance(outcome, MaskwireError):
            print(f"{path}: {outcome}", file=sys.stderr)
            continue
        number = len(dataset["images"]) + 1
        result = outcome[0]
        dataset["images"].append({"id": number, "file_name": path.name, "width": result.width, "height": result.height})
        dataset["annotations"].append(result.to_coco(number, number, polygons=True))
    return dataset


def refine(client: Client, image: EmbeddedImage) -> NDArray[np.bool_]:
    """Clicks an object into shape: in the middle, then without the lower right corner."""
    with client.session(image) as session:
        session.click(image.width / 2, image.height / 2)
        refined: Result = session.click(image.width - 1, image.height - 1, positive=False)
    return refined.mask


async def best_of(image: EmbeddedImage, points: list[tuple[float, float]]) -> float:
    """The highest score of several lone clicks, asked for at the same time."""
    async with AsyncClient() as client:
        results = await asyncio.gather(*(client.segment(image, points=[point]) for point in points))
    return max(result.score for result in results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of images")
    parser.add_argument("--box", required=True, help="x_min,y_min,x_max,y_max in pixels")
    parser.add_argument("-o", "--output", type=Path, required=True, help="COCO file to write")
    arguments = parser.parse_args()
    if not arguments.folder.is_dir():
        sys.exit(f"error: no such folder: {arguments.folder}")
    try:
        x_min, y_min, x_max, y_max = map(float, arguments.box.split(","))
    except ValueError:
        sys.exit(f"error: --box {arguments.box!r} is not x_min,y_min,x_max,y_max in pixels, such as 75,50,500,380")
    try:
        with Client() as client:
            dataset = segment_folder(client, arguments.folder, (x_min, y_min, x_max, y_max))
            if dataset["images"]:
                image = client.embed(arguments.folder / dataset["images"][0]["file_name"])
                print(f"{image.image_id}: {int(refine(client, image).sum())} pixels after two clicks")
                middle = (image.width / 2, image.height / 2)
                print(f"best score of a click: {asyncio.run(best_of(image, [middle, (10, 10)])):.2f}")
    except InvalidRequest as error:
        sys.exit(f"error: {error}")
    arguments.output.write_text(json.dumps(dataset))
    print(f"{len(dataset['annotations'])} masks: {arguments.output}")


if __name__ == "__main__":
    main()
