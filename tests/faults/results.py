"""What tests observed, kept as JSON: by row and variant."""

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

COMMITTED = Path(__file__).with_name("results.json")


@dataclass
class Observation:
    """What happened when a fault was injected.

    Attributes:
        row: Number in `rows.ROWS`.
        variant: Which of several ways; empty if there is one.
        injected: How, in a few words.
        observed: What happened.
        recovery_s: From the fault to the first right answer, or until what was held was freed.
    """

    row: int
    variant: str = ""
    injected: str = ""
    observed: str = ""
    recovery_s: float | None = None
    _since: float = field(default=0, repr=False)

    def fault(self) -> None:
        """The fault happens now."""
        self._since = time.monotonic()

    def recovered(self) -> float:
        """Everything is right again. Returns the seconds since the fault."""
        self.recovery_s = round(time.monotonic() - self._since, 3)
        return self.recovery_s


def save(observation: Observation, path: Path) -> None:
    """Adds an observation to a file, in the place of an older one of the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = load(path)
    fresh = {name: value for name, value in asdict(observation).items() if not name.startswith("_")}
    kept = [old for old in kept if (old.row, old.variant) != (observation.row, observation.variant)]
    everything = [{name: value for name, value in asdict(old).items() if not name.startswith("_")} for old in kept] + [
        fresh
    ]
    everything.sort(key=lambda item: (item["row"], item["variant"]))
    path.write_text(json.dumps(everything, indent=1) + "\n")


def load(path: Path) -> list[Observation]:
    return [Observation(**item) for item in json.loads(path.read_text())] if path.exists() else []
