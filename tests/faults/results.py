"""The observations of the tests, stored as JSON by row and variant."""

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

COMMITTED = Path(__file__).with_name("results.json")


@dataclass
class Observation:
    """What happened when a fault was injected.

    Attributes:
        row: Number of the fault in `rows.ROWS`.
        variant: Name of the variant, if the fault is injected in several ways.
        injected: How the fault was injected, in a few words.
        observed: What happened.
        recovery_s: Seconds from the fault to the first right answer, or until held resources were freed.
        tries: How often it was tried: twice, if a bound on a time was missed at first. None if that was not counted.
    """

    row: int
    variant: str = ""
    injected: str = ""
    observed: str = ""
    recovery_s: float | None = None
    tries: int | None = None
    _since: float = field(default=0, repr=False)

    def fault(self) -> None:
        """Records that the fault happens now."""
        self._since = time.monotonic()

    def recovered(self) -> float:
        """Records that everything works again. Returns the seconds since the fault."""
        self.recovery_s = round(time.monotonic() - self._since, 3)
        return self.recovery_s


def save(observation: Observation, path: Path) -> None:
    """Adds an observation to a file; it replaces an older one of the same row and variant."""
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
