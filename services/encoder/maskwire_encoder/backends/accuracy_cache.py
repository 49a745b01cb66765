"""What a start found out about a model on this machine, kept for the next one."""

import contextlib
import hashlib
import json
import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)


class Verdicts:
    """Mean IoUs with the reference's masks, by what was compared.

    Args:
        path: File that keeps them. One that cannot be read or written is no error: things are compared again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def find(self, *compared: str) -> float | None:
        """What was found out, if it was.

        Args:
            compared: All that the outcome depends on: model, arithmetic, versions, processor.
        """
        return self._read().get(_name(compared))

    def keep(self, iou: float, *compared: str) -> None:
        """Keeps an outcome."""
        partial = self._path.with_name(f"{os.getpid()}.{self._path.name}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(self._read() | {_name(compared): iou}, indent=1))
            partial.replace(self._path)
        except OSError as error:
            log.info("the next start compares again: %s", error)

    def _read(self) -> dict[str, float]:
        with contextlib.suppress(OSError, ValueError):
            kept = json.loads(self._path.read_text())
            if isinstance(kept, dict):
                return {name: value for name, value in kept.items() if isinstance(value, float)}
        return {}


def _name(compared: tuple[str, ...]) -> str:
    return hashlib.sha256("\0".join(compared).encode()).hexdigest()
