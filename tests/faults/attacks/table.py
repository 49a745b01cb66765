"""What was seen of the attacks, as JSON, and as the table in docs/explanation/security.md.

MASKWIRE_ATTACK_RESULTS=tests/faults/attacks/results.json python -m pytest -m "slow or not slow" tests/faults/attacks
python docs/generate.py
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from maskwire_core.config import DecoderSettings, EncoderSettings, GatewaySettings, TrackerSettings
from maskwire_core.runtime.memory_sum import stated_sum

RESULTS = "out/attacks.json"
COMMITTED = Path(__file__).with_name("results.json")
SLOWER, CALM_MS = 3, 10
"""How much longer clicks may take under attack; calm ones that take less than so many milliseconds count as that."""
SUMS = {
    "encoder": stated_sum(EncoderSettings.model_construct()),
    "decoder": stated_sum(DecoderSettings.model_construct()),
    "tracker": stated_sum(TrackerSettings.model_construct()),
    "gateway": stated_sum(GatewaySettings.model_construct()),
}
"""What each server takes at most, in bytes, as docs/explanation/security.md says."""
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

    @property
    def most_clicks_ms(self) -> float:
        """How long 99 of 100 clicks may take during the attack."""
        return SLOWER * max(self.calm_ms, CALM_MS)

    @property
    def too_large(self) -> list[str]:
        """Servers that took more memory than their sum."""
        return [name for name, mib in self.peak_mib.items() if mib > SUMS[name] >> 20]


def save(seen: Seen, path: Path) -> None:
    """Adds what was seen to a file; it replaces what was seen of the same attack before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = [one for one in load(path) if one.name != seen.name]
    path.write_text(json.dumps([asdict(one) for one in [*kept, seen]], indent=1) + "\n")


def load(path: Path) -> list[Seen]:
    return [Seen(**one) for one in json.loads(path.read_text())] if path.exists() else []


def table(path: Path = COMMITTED) -> str:
    """Returns a Markdown table of all attacks that were made. What misses a bound is bold."""
    lines = [
        "| attack | by | seen before | peak memory | another tenant's slowest call | its clicks, p99 | outcome |",
        "|---|---|---|---|---|---|---|",
    ]
    for seen in load(path):
        cells = (
            f"*{seen.name}*: {seen.how}",
            seen.who,
            seen.before,
            memory(seen),
            f"{seen.slowest_s:.2g} s" + (f", **{seen.refused} refused**" if seen.refused else ""),
            _bold(f"{seen.clicks_ms:.0f} ms", seen.clicks_ms > seen.most_clicks_ms)
            + f", calm {seen.calm_ms:.0f}"
            + (" (second try)" if seen.tries > 1 else ""),
            outcome(seen.outcomes),
        )
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)


def memory(seen: Seen) -> str:
    """Names the servers that took too much, else the one that has grown most."""
    names = seen.too_large or [max(seen.grown_mib, key=lambda one: seen.grown_mib[one])]
    said = ", ".join(f"{name} {seen.peak_mib[name]:,} MiB ({seen.grown_mib[name]:+,})" for name in names)
    return _bold(said, bool(seen.too_large))


def _bold(text: str, is_bold: bool) -> str:
    return f"**{text}**" if is_bold else text


def outcome(outcomes: Mapping[str, int]) -> str:
    """Lists the most frequent outcomes."""
    most = sorted(outcomes.items(), key=lambda pair: -pair[1])[:_OUTCOMES]
    return ", ".join(f"{what} {count:,}" for what, count in most) or "none answered"
