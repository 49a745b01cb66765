"""The simulation of clusters against queueing theory."""

import pytest

from bench.cluster import Cluster, Outcome, Times, simulate


def run(**changes: float) -> Outcome:
    times = Times(lookup=1e-9, read=1e-9, write=1e-9, prepare=1e-9, decode=0.01, encode=1e-9)
    cluster = {"encoders": 4, "decoders": 10, "nodes": 4, "affinity": False, "cached": 100, "users": 1200}
    return simulate(Cluster(**{**cluster, **changes}), times, clicks=30_000)  # type: ignore[arg-type]


@pytest.mark.parametrize("busy", [0.3, 0.6, 0.8])
def test_a_decoder_is_a_queue_with_one_server(busy: float) -> None:
    """Random arrivals, equal service times (M/D/1): mean wait = busy / (2 (1 - busy)) service times."""
    outcome = run(users=int(busy * 10 / 0.01 * 2))
    assert outcome.busy["decoders"] == pytest.approx(busy, rel=0.05)
    mean_ms = sum(outcome.click_ms) / len(outcome.click_ms)
    assert mean_ms == pytest.approx(10 * (1 + busy / (2 * (1 - busy))), rel=0.15)


def test_affinity_reads_each_image_once_where_memory_holds_all_users_images() -> None:
    assert run(affinity=True, cached=1000).reads == pytest.approx(1 / Cluster.clicks, rel=0.15)
    assert run(affinity=True, cached=40).reads > 0.5  # 120 users on each
    assert run(affinity=False, decoders=1000).reads > 0.95
    assert run(affinity=True, cached=0).reads == pytest.approx(1, rel=0.01)
