"""What callers share: nobody gets everything, and a newcomer gets something."""

import contextlib
import random

import pytest
from maskwire_core.scheduling.shares import Shares


def taken(shares: Shares, holder: str, amount: int = 1) -> int:
    """Takes amounts until no more may be had. Returns how much that was."""
    before = shares.of(holder)
    while shares.take(holder, amount):
        pass
    return shares.of(holder) - before


def test_a_newcomer_always_finds_something() -> None:
    shares = Shares(900)
    found = [taken(shares, name) for name in ("first", "second", "third", "fourth")]
    assert found == [600, 200, 67, 22]
    assert shares.held == sum(found)
    assert taken(shares, "first") == 0
    shares.add("first", -600)
    assert shares.of("first") == 0
    assert taken(shares, "fourth") > 100  # what is given back is there for all


def test_large_amounts_fit_while_there_is_room() -> None:
    shares = Shares(1000)
    assert not shares.take("a", 1001)
    assert shares.take("a", 1000)
    assert not shares.take("b", 1)
    shares.add("a", -1000)
    assert taken(shares, "a", 64) == 11 * 64  # less than twice what is free at the last one


def test_what_was_taken_is_given_back_whatever_happens() -> None:
    shares = Shares(3)
    with contextlib.suppress(KeyError), shares.holding("a", 2, ValueError("no")):
        assert shares.held == 2
        raise KeyError
    assert shares.held == 0
    with pytest.raises(ValueError, match="no"), shares.holding("a", 4, ValueError("no")):
        pass
    assert shares.held == 0


def test_a_small_holder_leaves_most_to_others() -> None:
    shares = Shares(900, {"nobody"})
    assert taken(shares, "nobody") == 100
    assert taken(shares, "somebody") == 534
    assert shares.is_small("nobody")
    assert not shares.is_small("somebody")


def test_what_could_fit_is_what_fits_while_nobody_else_holds_anything() -> None:
    chance, found = random.Random(5), []
    for _ in range(300):
        crowded, alone = (Shares(total, {"nobody"}) for total in [chance.randrange(1, 1000)] * 2)
        crowded.add("others", chance.randrange(2000))
        holder, has, amount = chance.choice(["nobody", "somebody"]), chance.randrange(500), chance.randrange(1000)
        alone.add(holder, has)
        assert crowded.could_fit(holder, amount, has) == alone.fits(holder, amount)
        found.append(alone.fits(holder, amount))
    assert 30 < sum(found) < 270
