"""Times two ways of doing the same thing side by side."""

import contextlib
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

_PACKAGES = ("torch", "sam2", "onnxruntime", "openvino", "numpy", "grpcio", "redis", "hiredis", "protobuf")

_PAUSE_S = 0.1


@dataclass
class Row:
    """One comparison, ready to run.

    Attributes:
        name: What is measured.
        against: What it is compared with.
        at_most: The largest ratio of the two medians that we aim for.
        ours: Does it once in our way.
        other: Does it once in the other way.
        check: Compares the results of both and says how well they agree; raises AssertionError if they do not.
        rounds: How often each way is timed, in turns.
    """

    name: str
    against: str
    at_most: float
    ours: Callable[[], Any]
    other: Callable[[], Any]
    check: Callable[[Any, Any], str] = lambda ours, other: ""
    rounds: int = 15


@dataclass
class Outcome:
    """The figures of a row. Times are in milliseconds; a spread is the interquartile range."""

    name: str
    against: str
    at_most: float
    ours_ms: float
    ours_spread_ms: float
    other_ms: float
    other_spread_ms: float
    ratio: float
    agreement: str
    samples_ms: dict[str, list[float]] = field(repr=False)


def measure(row: Row) -> Outcome:
    """Runs both ways in turns, so that what disturbs the machine disturbs both.

    The threads of torch and ONNX Runtime spin for a while after their work; a pause keeps them out of the other way's
    time.
    """
    agreement = row.check(row.ours(), row.other())
    samples: dict[str, list[float]] = {"ours": [], "other": []}
    for number in range(row.rounds):
        ways = [("ours", row.ours), ("other", row.other)]
        for name, run in ways if number % 2 else ways[::-1]:
            time.sleep(_PAUSE_S)
            started = time.perf_counter()
            run()
            samples[name].append((time.perf_counter() - started) * 1e3)
    ours, other = (statistics.median(samples[name]) for name in ("ours", "other"))
    return Outcome(
        name=row.name,
        against=row.against,
        at_most=row.at_most,
        ours_ms=ours,
        ours_spread_ms=_spread(samples["ours"]),
        other_ms=other,
        other_spread_ms=_spread(samples["other"]),
        ratio=ours / other,
        agreement=agreement,
        samples_ms=samples,
    )


def _spread(samples: list[float]) -> float:
    if len(samples) < 2:
        return 0
    low, _, high = statistics.quantiles(samples, n=4)
    return high - low


def table(outcomes: list[Outcome]) -> str:
    """Returns the figures as a Markdown table."""
    lines = [
        "| what | against | ms (spread) | against, ms (spread) | ratio | aim | agreement |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.name} | {one.against} | {one.ours_ms:.2f} ({one.ours_spread_ms:.2f}) "
        f"| {one.other_ms:.2f} ({one.other_spread_ms:.2f}) | {one.ratio:.3f} | {one.at_most} | {one.agreement} |"
        for one in outcomes
    ]
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """Describes the machine and the packages that figures are measured with."""
    versions = {}
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions,
        "date": time.strftime("%Y-%m-%d"),
    }


def _cpu() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def as_json(outcomes: list[Outcome], command: str, **more: Any) -> str:
    """Returns the figures with every sample as JSON."""
    document = {"command": command, **machine(), "rows": [asdict(one) for one in outcomes], **more}
    return json.dumps(document, indent=1) + "\n"
