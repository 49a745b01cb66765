"""What was seen of the attacks, as JSON, and as the table in docs/explanation/security.md.

MASKWIRE_ATTACK_RESULTS=tests/faults/attacks/results.json python -m pytest -m "slow or not slow" tests/faults/attacks
python docs/generate.py
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

RESULTS = "out/attacks.json"
COMMITTED = Path(__file__).with_name("results.json")
_OUTCOMES = 4


@dataclass
class Seen:
    """What one attack did.

    Attributes:
        name: Name of the attack.
        how: What was sent.
        who: "a tenant" or "nobody".
        before: What was seen of its kind before.
        peak_mib: The most memory of each server, in MiB.
        grown_mib: By how much that is more than before the attack.
        calm_ms: 99th percentile of another tenant's clicks before and after the attack.
        clicks_ms: The same during the attack.
        clicks: How many these were.
        slowest_s: The other tenant's slowest call of any kind, in seconds.
        refused: How many calls of the other tenant were refused.
        settled_s: How long after the attack clicks were still slow, in seconds.
        outcomes: How the attacker's calls ended.
        tries: Which try this was: the first, or the second because of a bound on a time.
    """

    name: str
    how: str
    who: str
    before: str
    peak_mib: dict[str, int]
    grown_mib: dict[str, int]
    calm_ms: float
    clicks_ms: float
    clicks: int
    slowest_s: float
    refused: int
    settled_s: float
    outcomes: dict[str, int]
    tries: int


def save(seen: Seen, path: Path) -> None:
    """Adds what was seen to a file; it replaces what was seen of the same attack before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = [one for one in load(path) if one.name != seen.name]
    path.write_text(json.dumps([asdict(one) for one in [*kept, seen]], indent=1) + "\n")


def load(path: Path) -> list[Seen]:
    return [Seen(**one) for one in json.loads(path.read_text())] if path.exists() else []


def table(path: Path = COMMITTED) -> str:
    """Returns a Markdown table of all attacks that were made."""
    lines = [
        "| attack | by | seen before | peak memory | another tenant's slowest call | its clicks, p99 | outcome |",
        "|---|---|---|---|---|---|---|",
    ]
    for seen in load(path):
        cells = (
            f"*{seen.name}*: {seen.how}",
            seen.who,
            seen.before,
            memory(seen.peak_mib, seen.grown_mib),
            f"{seen.slowest_s:.2g} s" + (f", {seen.refused} refused" if seen.refused else ""),
            f"{seen.clicks_ms:.0f} ms, calm {seen.calm_ms:.0f}" + (" (second try)" if seen.tries > 1 else ""),
            outcome(seen.outcomes),
        )
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)


def memory(peak_mib: Mapping[str, int], grown_mib: Mapping[str, int]) -> str:
    """Names the server that has grown most."""
    name = max(grown_mib, key=lambda one: grown_mib[one])
    return f"{name} {peak_mib[name]:,} MiB ({grown_mib[name]:+,})"


def outcome(outcomes: Mapping[str, int]) -> str:
    """Lists the most frequent outcomes."""
    most = sorted(outcomes.items(), key=lambda pair: -pair[1])[:_OUTCOMES]
    return ", ".join(f"{what} {count:,}" for what, count in most) or "none answered"
