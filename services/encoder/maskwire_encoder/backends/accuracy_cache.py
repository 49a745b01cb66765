"""Outcomes of accuracy checks on this machine, kept for the next start."""

import hashlib
import json
import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)


class AccuracyCache:
    """Mean IoUs with the masks of the reference, by what was compared: model, arithmetic, versions and processor.

    Args:
        path: JSON file in which they are kept. If it cannot be read or written, the next start compares again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, *compared: str) -> float | None:
        """A mean IoU, if it is known."""
        iou = self._load().get(_key(compared))
        return iou if isinstance(iou, float) else None

    def put(self, iou: float, *compared: str) -> None:
        """Keeps a mean IoU."""
        partial = self._path.with_name(f"{os.getpid()}.{self._path.name}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(self._load() | {_key(compared): iou}, indent=1))
            partial.replace(self._path)
        except OSError as error:
            log.info("the next start checks the accuracy again: %s", error)

    def _load(self) -> dict[str, object]:
        try:
            kept = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return kept if isinstance(kept, dict) else {}


def _key(compared: tuple[str, ...]) -> str:
    return hashlib.sha256("\0".join(compared).encode()).hexdigest()
