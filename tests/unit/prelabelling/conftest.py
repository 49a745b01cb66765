"""A data set with boxes, and the lines of a journal that has masks for them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from maskwire.prelabelling.journal import Header, Journal, writing
from maskwire.prelabelling.shards import Shard, journal_path

NAMES = [f"photo-{number % 7}/{number:02}.jpg" for number in range(11)]


def make_dataset() -> dict[str, Any]:
    """A data set of 11 images with 22 boxes, and with more than masks need."""
    return {
        "info": {"year": 2026, "note": "Übung"},
        "images": [{"id": 100 + n, "file_name": name, "width": 60, "height": 40} for n, name in enumerate(NAMES)],
        "categories": [{"id": 7, "name": "cup", "supercategory": "dishes"}],
        "annotations": [
            {
                "id": 500 - n,
                "image_id": 100 + n % 11,
                "category_id": 7,
                "bbox": [n, 1.5, 10, 20.25],
                "iscrowd": 0,
                "attributes": {"occluded": n % 2 == 0},
            }
            for n in range(22)
        ],
    }


def make_header(sha256: str, shard: str = "", **changes: Any) -> Header:
    options: dict[str, Any] = {"polygons": False, "tight_boxes": False, "replace": False, "stretch": "auto"}
    return Header(boxes_sha256=sha256, shard=shard, **options, model="demo", fingerprint="f1", **changes)


def done_line(image: int, file_name: str = "", annotations: tuple[int, ...] = ()) -> dict[str, Any]:
    masks = [
        [n, {"segmentation": {"size": [40, 60], "counts": f"c{n}"}, "area": n, "score": n / 7}] for n in annotations
    ]
    return {"image": image, "file_name": file_name, "masks": masks, "skipped": []}


def failed_line(image: int, file_name: str = "") -> dict[str, Any]:
    return {"image": image, "file_name": file_name, "error": {"message": "no such file", "reason": "", "field": ""}}


@pytest.fixture
def boxes(tmp_path: Path) -> Path:
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(make_dataset(), indent=1))
    return path


@pytest.fixture
def write_journal(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes the journal of a shard (None: of the whole job), with a header and lines."""

    def write(shard: str | None, header: Header, lines: list[dict[str, Any]]) -> Path:
        path = journal_path(tmp_path / "masks.json", Shard.parse(shard) if shard else None)
        with writing(path) as journal:
            begun: Journal = journal
            begun.begin(header)
            begun.add(lines)
        return path

    return write
