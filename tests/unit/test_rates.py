"""What a token's rates count: what arrives, also where it was not announced or was refused."""

import pytest
from maskwire_core.errors import ResourceExhausted
from maskwire_core.tenancy.tenant import EVERYBODY, Caller
from maskwire_core.tenancy.tokens import Token

RATE = 1000


def caller(**rates: float) -> Caller:
    return Caller(Token(id="a", sha256="0" * 64, namespaces=("a",), rights=frozenset({"encode"}), burst_s=5, **rates))


def retry_after_s(refused: Caller, **amounts: int) -> float:
    with pytest.raises(ResourceExhausted) as caught:
        refused.charge(**amounts)
    assert caught.value.reason == "RATE_LIMITED"
    assert caught.value.retry_after_s is not None
    return caught.value.retry_after_s


def test_bytes_that_nobody_announced_are_owed() -> None:
    limited = caller(bytes_per_s=RATE)
    assert limited.owe(2000) == 0  # there was enough
    assert limited.owe(60_000_000) == pytest.approx(60_000, rel=0.1)
    assert retry_after_s(limited, announced_bytes=1) == pytest.approx(60_000, rel=0.1)
    assert EVERYBODY.owe(60_000_000) == 0


def test_a_large_request_is_paid_for_though_it_is_refused() -> None:
    limited = caller(bytes_per_s=RATE)
    limited.charge(received_bytes=4900)
    assert retry_after_s(limited, received_bytes=10_000_000) < 5  # as always: until a full bucket
    assert retry_after_s(limited, received_bytes=1) > 9000
    busy = caller(bytes_per_s=RATE, requests_per_s=1)
    busy.charge(requests=5)
    retry_after_s(busy, requests=1, received_bytes=10_000_000)
    assert busy.owe(1) > 9000


def test_small_requests_that_are_refused_cost_nothing() -> None:
    """Else callers who try again at once would keep one another out."""
    limited = caller(bytes_per_s=RATE)
    limited.charge(received_bytes=5000)
    for _ in range(100):
        assert retry_after_s(limited, received_bytes=200) < 0.3
    for _ in range(100):
        assert retry_after_s(limited, announced_bytes=100_000) < 6  # nothing has come


def test_rates_are_taken_together_or_not_at_all() -> None:
    limited = caller(bytes_per_s=RATE, encodes_per_s=1)
    limited.charge(encodes=5, announced_bytes=1000)
    assert retry_after_s(limited, encodes=1, announced_bytes=1000) < 1.1
    limited.charge(announced_bytes=4000)
