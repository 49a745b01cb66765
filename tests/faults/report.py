"""Writes docs/reliability.md from the stored observations: python -m tests.faults.report

MASKWIRE_FAULT_RESULTS=tests/faults/results.json python -m pytest tests/faults
python -m tests.faults.crasher --minutes 10 --json tests/faults/crasher.json
python -m tests.faults.fuzz --inputs 100000 --json tests/faults/fuzz.json
python -m tests.faults.soak --minutes 10 --json tests/faults/soak.json
python -m tests.faults.streams --streams 100000 > tests/faults/streams.txt
python -m tests.faults.report
"""

import json
from pathlib import Path

from .results import COMMITTED, Observation, load
from .rows import ROWS

_HERE = Path(__file__).parent
_DOC = _HERE.parent.parent / "docs" / "reliability.md"


def table(observations: list[Observation]) -> list[str]:
    """Returns a Markdown table with a line for each row of `ROWS`, injected or not."""
    lines = ["| # | fault | expected | injected | observed | recovery | tries |", "|---|---|---|---|---|---|---|"]
    for number, (fault, expected) in ROWS.items():
        seen = [observation for observation in observations if observation.row == number]
        if not seen:
            injected, observed = "", "**not yet injected**"
        elif len({(one.injected, one.observed) for one in seen}) == 1:
            injected, observed = seen[0].injected, seen[0].observed + _ways(seen)
        else:
            injected = "<br>".join(dict.fromkeys(f"{_name(one)}{one.injected}" for one in seen))
            observed = "<br>".join(f"{_name(one)}{one.observed}" for one in seen)
        lines.append(
            f"| {number} | {fault} | {expected} | {injected} | {observed} | {_recovery(seen)} | {_tries(seen)} |"
        )
    return lines


def _recovery(seen: list[Observation]) -> str:
    """Returns the range of recovery times, or "" if nothing had to recover."""
    times = [one.recovery_s for one in seen if one.recovery_s is not None]
    if len(times) < 2:
        return "".join(f"{time_s:.2g} s" for time_s in times)
    return f"{min(times):.2g} to {max(times):.2g} s"


def _tries(seen: list[Observation]) -> str:
    """Returns how often a fault was injected until its bounds on times held, by variant where that differs."""
    if len({one.tries for one in seen}) <= 1:
        return _counted(seen[0]) if seen else ""
    return "<br>".join(f"{_name(one)}{_counted(one)}" for one in seen)


def _counted(observation: Observation) -> str:
    return "not counted" if observation.tries is None else str(observation.tries)


def _name(observation: Observation) -> str:
    return f"*{observation.variant}*: " if observation.variant else ""


def _ways(seen: list[Observation]) -> str:
    names = [one.variant for one in seen if one.variant]
    return f" ({', '.join(names)})" if len(names) > 1 else ""


def quoted(path: Path) -> list[str]:
    """Returns the lines of a stored report as a literal block."""
    if not path.exists():
        return ["Not yet run."]
    lines = json.loads(path.read_text()) if path.suffix == ".json" else path.read_text().splitlines()
    return [f"    {line}" for line in lines]


def document(observations: list[Observation]) -> str:
    """Returns the text of docs/reliability.md."""
    text = (_HERE / "reliability.md").read_text()
    for name, lines in {
        "ROWS": table(observations),
        "CRASHER": quoted(_HERE / "crasher.json"),
        "SOAK": quoted(_HERE / "soak.json"),
        "FUZZ": quoted(_HERE / "fuzz.json"),
        "STREAMS": quoted(_HERE / "streams.txt"),
    }.items():
        text = text.replace(f"[{name}]", "\n".join(lines))
    return text


if __name__ == "__main__":
    _DOC.write_text(document(load(COMMITTED)))
