"""How long the stages of an encode took, in metrics and traces."""

import time

from maskwire_core.telemetry import tracing
from maskwire_core.telemetry.metrics import STAGES


def record_stages(**stages_ms: float) -> None:
    """Records consecutive stages, of which the last ended now, in metrics and traces; values are milliseconds."""
    for stage, took_ms in stages_ms.items():
        STAGES.labels(stage).observe(took_ms / 1e3)
    tracing.ended([(stage, took_ms / 1e3) for stage, took_ms in stages_ms.items()])


def ms_since(started: float) -> float:
    """Milliseconds since a time by `time.perf_counter`."""
    return (time.perf_counter() - started) * 1e3
