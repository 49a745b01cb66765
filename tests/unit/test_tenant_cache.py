"""The cache in memory that is fair between tenants."""

import random

from maskwire_core.tenancy.tenant_cache import TenantCache


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


def cache(max_bytes: int, clock: Clock | None = None) -> TenantCache[tuple[str, str], int]:
    return TenantCache(max_bytes, lambda _, nbytes: nbytes, clock or Clock())


def test_alone_a_tenant_has_all_of_it_and_the_least_recently_used_leaves() -> None:
    kept = cache(40)
    for name in "abcd":
        kept.put(("one", name), 10)
    assert kept.get(("one", "a")) == 10
    kept.put(("one", "e"), 10)
    assert [name for name in "abcde" if ("one", name) in kept] == ["a", "c", "d", "e"]
    assert (kept.nbytes, len(kept), kept.latest()) == (40, 4, 10)
    kept.put(("one", "a"), 5)
    assert (kept.nbytes, kept.get(("one", "a"))) == (35, 5)
    kept.put(("one", "huge"), 41)
    assert (kept.nbytes, kept.get(("one", "huge"))) == (35, None)


def test_who_reads_a_thousand_images_leaves_another_their_own() -> None:
    kept = cache(100)
    for name in "abc":
        kept.put(("small", name), 10)
    for number in range(1000):
        kept.put(("large", str(number)), 10)
    assert [name for name in "abc" if ("small", name) in kept] == ["a", "b", "c"]
    assert ("large", "999") in kept
    for number in range(20):  # and when both want all, each has half
        kept.put(("small", str(number)), 10)
    assert sum(("small", str(number)) in kept for number in range(20)) == 5
    assert (kept.nbytes, len(kept)) == (100, 10)


def test_what_was_not_used_for_long_leaves_first() -> None:
    clock = Clock()
    kept = cache(100, clock)
    for number in range(5):
        kept.put((f"idle {number}", "x"), 10)
    clock.now += 301
    for number in range(10):
        kept.put(("busy", str(number)), 10)
    assert all(("busy", str(number)) in kept for number in range(10))


def test_values_of_images_are_dropped() -> None:
    kept: TenantCache[tuple[str, str, int], int] = TenantCache(1000, lambda _, nbytes: nbytes)
    for number in range(3):
        for tenant in ("a", "b"):
            for image in ("x", "y"):
                kept.put((tenant, image, number), 1)
    kept.drop({("a", "x"), ("c", "x")})
    assert {key for key in (("a", "x", 0), ("a", "y", 0), ("b", "x", 0)) if key in kept} == {
        ("a", "y", 0),
        ("b", "x", 0),
    }
    assert (len(kept), kept.nbytes) == (9, 9)
    kept.clear()
    assert (len(kept), kept.nbytes, kept.latest()) == (0, 0, None)


def test_the_bytes_are_right_whatever_happens() -> None:
    chance, clock = random.Random(1), Clock()
    kept = cache(50, clock)
    for _ in range(3000):
        key = (chance.choice("abc"), chance.choice("uvwxyz"))
        match chance.randrange(4):
            case 0 | 1:
                kept.put(key, chance.randrange(1, 20))
            case 2:
                kept.get(key)
            case 3:
                kept.drop({key})
        clock.now += chance.choice([0, 0, 0, 100])
        present = [kept.get((tenant, name)) or 0 for tenant in "abc" for name in "uvwxyz"]
        assert kept.nbytes == sum(present) <= 50


def test_room_is_made_before_a_value_comes() -> None:
    """As if it had been kept: but there never is more than there may be."""
    kept = cache(100)
    for name in "abcdef":
        kept.put(("large", name), 15)
    assert kept.make_room("large", 15)
    assert [name for name in "abcdef" if ("large", name) in kept] == ["b", "c", "d", "e", "f"]
    kept.put(("large", "g"), 15)
    assert kept.make_room("small", 20)  # from who has most
    assert [name for name in "bcdefg" if ("large", name) in kept] == ["c", "d", "e", "f", "g"]
    assert not kept.make_room("small", 101)
    assert not kept.make_room("small", 80)  # it would be the one with most
    assert kept.nbytes == 75
    assert kept.make_room("large", 100)
    assert kept.nbytes == 0


def test_what_is_idle_is_dropped() -> None:
    clock = Clock()
    kept = cache(100, clock)
    kept.put(("one", "old"), 10)
    kept.put(("one", "used"), 10)
    kept.put(("two", "old"), 10)
    clock.now += 20
    assert kept.get(("one", "used")) == 10
    kept.drop_idle(10)
    assert (kept.nbytes, len(kept)) == (10, 1)
    clock.now += 20
    kept.drop_idle(10)
    assert (kept.nbytes, len(kept)) == (0, 0)
