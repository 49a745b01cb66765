"""The fair queue: shares of tenants and connections, priorities, limits, and entries that leave."""

import itertools
import math
import random
from collections import Counter
from collections.abc import Hashable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from maskwire_core.scheduling.fair_queue import BULK_SHARE, Entry, FairQueue, Limits, Requester


def entry(
    tenant: str = "a",
    connection: Hashable = 0,
    bulk: bool = False,
    kind: Hashable = None,
    work: int = 1,
    nbytes: int = 0,
) -> Entry:
    return Entry(Requester(tenant, connection), bulk, kind, work, nbytes)


def filled(entries: Sequence[Entry], limits: Limits = Limits()) -> FairQueue[Entry]:  # noqa: B008 - frozen
    queue: FairQueue[Entry] = FairQueue(limits)
    for each in entries:
        assert queue.add(each) == []
    return queue


def drained(queue: FairQueue[Entry], most: int = 1) -> list[Entry]:
    return list(itertools.chain.from_iterable(iter(lambda: queue.take(lambda _: most) if len(queue) else [], [])))


def served(entries: Sequence[Entry]) -> Counter[str]:
    """Units of work by tenant."""
    counts: Counter[str] = Counter()
    for each in entries:
        counts[each.requester.tenant] += each.work
    return counts


def test_a_tenant_with_ten_connections_gets_no_more_than_one_with_one() -> None:
    flood = [entry("flood", connection) for connection in range(10) for _ in range(100)]
    order = drained(filled([*flood, *(entry("modest") for _ in range(100))]))
    for place in range(1, 200):
        assert abs(served(order[:place])["modest"] - place / 2) <= 1
    connections = Counter(each.requester.connection for each in order[:200] if each.requester.tenant == "flood")
    assert set(connections.values()) == {10}


def test_a_single_request_passes_a_flood() -> None:
    queue = filled([entry("flood", connection) for connection in range(10) for _ in range(100)])
    for _ in range(500):
        queue.take()
    single = entry("single")
    assert queue.add(single) == []
    assert single in [*queue.take(), *queue.take()]


def test_new_connections_do_not_starve_one_that_stays() -> None:
    """Between two turns of a connection, only those are served that waited at the first of them."""
    queue = filled([entry(connection="patient") for _ in range(100)])
    allowed = {"patient"}
    for connection in range(1000):
        assert queue.add(entry(connection=connection)) == []
        (turn,) = queue.take()
        assert turn.requester.connection in allowed
        if turn.requester.connection == "patient":
            allowed = {each.requester.connection for each in queue}
    assert 2 <= sum(each.requester.connection == "patient" for each in queue) <= 95


@given(
    works=st.dictionaries(
        st.tuples(st.sampled_from("abc"), st.integers(0, 3)),
        st.lists(st.integers(1, 20), min_size=1, max_size=30),
        min_size=2,
    )
)
def test_service_is_fair_in_work(works: dict[tuple[str, int], list[int]]) -> None:
    """While two flows both wait, what they get differs by no more than their largest entries: Golestani's bound."""
    entries = [entry(tenant, connection, work=work) for (tenant, connection), of in works.items() for work in of]
    random.Random(len(entries)).shuffle(entries)
    waiting = served(entries)
    within = {(each.requester.tenant, each.requester.connection): 0 for each in entries}
    left = Counter((each.requester.tenant, each.requester.connection) for each in entries)
    got: Counter[str] = Counter()
    largest = max(each.work for each in entries)
    last: dict[Requester, int] = {}
    positions = {each: place for place, each in enumerate(entries)}
    for each in drained(filled(entries)):
        tenant, connection = each.requester.tenant, each.requester.connection
        got[tenant] += each.work
        within[tenant, connection] += each.work  # type: ignore[index]
        left[tenant, connection] -= 1
        assert positions[each] > last.get(each.requester, -1)  # in the order in which they came
        last[each.requester] = positions[each]
        busy = [name for name in waiting if got[name] < waiting[name]]
        assert all(abs(got[one] - got[other]) <= 2 * largest for one in busy for other in busy)
        for name in waiting:
            flows = [work for flow, work in within.items() if flow[0] == name and left[flow]]
            assert not flows or max(flows) - min(flows) <= 2 * largest
    assert got == waiting


@pytest.mark.parametrize("seed", range(20))
def test_service_is_fair_in_work_while_entries_come_and_leave(seed: int) -> None:
    """An entry that comes later may be served before a larger one of the same tenant; it alone is charged then."""
    chance = random.Random(seed)
    queue: FairQueue[Entry] = FairQueue(Limits())
    works = {"small": (1, 2), "large": (20, 30), "mixed": (1, 30)}
    got = Counter(works.keys())
    for _ in range(1000):
        for tenant, choice in works.items():
            for _ in range(5 - sum(each.requester.tenant == tenant for each in queue)):
                new = entry(tenant, chance.randrange(3), kind=chance.randrange(2), work=chance.choice(choice))
                assert queue.add(new) == []
        if chance.random() < 0.2:
            assert queue.discard(chance.choice(list(queue)))
        got += served(queue.take())
        assert max(got.values()) - min(got.values()) <= 2 * 30


def test_bulk_work_gets_its_share_and_no_more() -> None:
    queue = filled([*(entry(bulk=True, work=3) for _ in range(5)), *(entry() for _ in range(200))])
    order = drained(queue)
    places = [place for place, each in enumerate(order) if each.bulk]
    between = 3 * (BULK_SHARE - 1)
    assert places == [between * (number + 1) + number for number in range(5)]


def test_an_interactive_flood_of_one_tenant_does_not_stop_the_bulk_work_of_another() -> None:
    queue = filled([*(entry("flood") for _ in range(80)), *(entry("modest", bulk=True) for _ in range(80))])
    assert served(drained(queue)[:80]) == {"flood": 70, "modest": 10}


def test_the_tenant_that_has_most_waiting_gives_way() -> None:
    flood = [entry("flood", connection) for connection in (1, 1, 2, 1)]
    queue = filled(flood, Limits(work=4))
    first, second, third = entry("modest"), entry("modest"), entry("modest")
    assert queue.add(first) == [flood[3]]  # the newest of the longest connection
    assert queue.add(second) in ([flood[1]], [flood[2]])
    assert queue.add(third) == [third]  # now both have two
    assert queue.add(again := entry("flood", 3)) == [again]
    assert queue.add(entry("flood", 3, bulk=True)) == []  # the other priority has room of its own


def test_the_longest_connection_of_a_tenant_gives_way() -> None:
    flood = [entry(connection="flood") for _ in range(4)]
    queue = filled(flood, Limits(work=4))
    assert queue.add(entry(connection="modest")) == [flood[3]]
    assert queue.add(again := entry(connection="flood")) == [again]


def test_bytes_are_limited() -> None:
    large = [entry("flood", nbytes=40) for _ in range(2)]
    queue = filled([*large, *(entry("small", nbytes=1) for _ in range(10))], Limits(nbytes=100))
    assert queue.add(entry("modest", nbytes=20)) == [large[1]]  # which has most bytes, not most entries
    assert queue.add(again := entry("flood", nbytes=70)) == [again]
    assert queue.add(entry("modest", nbytes=20)) == []


@given(
    sizes=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2), st.integers(1, 9), st.integers(0, 9))),
    limit=st.integers(9, 40),
)
def test_limits_hold_and_refuse_none_that_has_less_than_its_share(
    sizes: list[tuple[str, int, int, int]], limit: int
) -> None:
    queue: FairQueue[Entry] = FairQueue(Limits(work=limit, nbytes=limit))
    for tenant, connection, work, nbytes in sizes:
        newcomer = entry(tenant, connection, work=work, nbytes=nbytes)
        before = list(queue)
        refused = queue.add(newcomer)
        assert sum(each.work for each in queue) <= limit
        assert sum(each.nbytes for each in queue) <= limit
        assert [each for each in [*before, newcomer] if each not in refused] == list(queue)
        tenants = {each.requester.tenant for each in [*before, newcomer]}
        for each in refused:  # it had more than an equal share of one of the limits
            own = [one for one in [*before, newcomer] if one.requester.tenant == each.requester.tenant]
            assert max(sum(one.work for one in own), sum(one.nbytes for one in own)) > limit / len(tenants)


@given(
    waiting=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2), st.booleans()), max_size=40),
    limit=st.integers(1, 20),
    bulk=st.booleans(),
)
def test_room_is_what_may_be_added_before_some_of_it_gives_way(
    waiting: list[tuple[str, int, bool]], limit: int, bulk: bool
) -> None:
    queue: FairQueue[Entry] = FairQueue(Limits(work=limit))
    for tenant, connection, is_bulk in waiting:
        queue.add(entry(tenant, connection, is_bulk))
    room = int(queue.room(Requester("a", 0), bulk))
    added = [entry("a", 0, bulk) for _ in range(room + 1)]
    for each in added[:room]:
        assert not {*queue.add(each)} & {*added}
    assert {*queue.add(added[room])} & {*added}
    assert filled([]).room(Requester("a", 0), bulk) == math.inf


def test_kinds_take_turns_and_tenants_share_batches() -> None:
    queue = filled(
        [
            *(entry("flood", kind="large") for _ in range(6)),
            *(entry("flood", kind="small") for _ in range(3)),
            *(entry("modest", kind="large") for _ in range(3)),
        ]
    )
    batches = [[(each.requester.tenant, each.kind) for each in queue.take(lambda _: 4)] for _ in range(4)]
    assert [{kind for _, kind in batch} for batch in batches] == [{"large"}, {"small"}, {"large"}, {"large"}] or [
        {kind for _, kind in batch} for batch in batches
    ] == [{"large"}, {"large"}, {"small"}, {"large"}]
    assert Counter(tenant for tenant, _ in batches[0]) == {"flood": 2, "modest": 2}
    assert not len(queue)


def test_two_kinds_of_work_bring_no_second_share() -> None:
    entries = [entry("flood", kind=kind) for kind in ("large", "small") for _ in range(50)]
    order = drained(filled([*entries, *(entry("modest", kind="large") for _ in range(50))]))
    assert served(order[:100]) == {"flood": 50, "modest": 50}


def test_bulk_work_that_became_urgent() -> None:
    waiting = [entry(bulk=True) for _ in range(3)]
    queue = filled(waiting, Limits(work=3))
    assert queue.expedite(waiting[2]) == []
    assert drained(queue) == [waiting[2], waiting[0], waiting[1]]
    full = filled([*(entry("flood") for _ in range(3)), late := entry("flood", bulk=True)], Limits(work=3))
    assert full.expedite(late) == []  # no room: it stays where it is
    assert late.bulk
    assert len(full) == 4


@pytest.mark.parametrize("seed", range(20))
def test_the_order_is_that_of_a_simple_model(seed: int) -> None:
    """Entries of equal work come, leave and are served as in round robin written down with lists."""
    chance = random.Random(seed)
    queue: FairQueue[Entry] = FairQueue(Limits())
    # Tenants in the order of their turns, each with its connections in theirs, each with its entries.
    rounds: list[tuple[str, list[tuple[Hashable, list[Entry]]]]] = []
    for _ in range(2000):
        action = chance.random()
        if action < 0.5:
            new = entry(chance.choice("abcd"), chance.randrange(4))
            queue.add(new)
            connections = next((each for tenant, each in rounds if tenant == new.requester.tenant), None)
            if connections is None:
                rounds.append((new.requester.tenant, connections := []))
            entries = next((each for key, each in connections if key == new.requester.connection), None)
            if entries is None:
                connections.append((new.requester.connection, entries := []))
            entries.append(new)
        elif action < 0.6 and len(queue):
            gone = chance.choice(list(queue))
            assert queue.discard(gone)
            assert not queue.discard(gone)
            for _, connections in rounds:
                for _, entries in connections:
                    if gone in entries:
                        entries.remove(gone)
        elif len(queue):
            tenant, connections = rounds.pop(0)
            connection, entries = connections.pop(0)
            assert queue.take() == [entries.pop(0)]
            connections.append((connection, entries))
            rounds.append((tenant, connections))
        for _, connections in rounds:
            connections[:] = [each for each in connections if each[1]]
        rounds[:] = [each for each in rounds if each[1]]
        assert len(queue) == sum(len(entries) for _, connections in rounds for _, entries in connections)


def test_the_work_ahead_is_what_is_served_before() -> None:
    chance = random.Random(1)
    for _ in range(200):
        entries = [entry(chance.choice("abc"), chance.randrange(3), chance.random() < 0.5) for _ in range(60)]
        queue = filled(entries)
        newcomer = entry(chance.choice("abcd"), chance.randrange(4), chance.random() < 0.5)
        expected = queue.work_until(newcomer.requester, newcomer.bulk, 1)
        queue.add(newcomer)
        assert abs(drained(queue).index(newcomer) + 1 - expected) <= BULK_SHARE + 4


def test_nothing_is_kept_of_what_has_left() -> None:
    queue = filled([entry()])
    for number in range(10_000):
        passing = entry("other", number)
        queue.add(passing)
        queue.discard(passing)
    lane = queue._lanes[False]
    assert len(lane.flows) == 1
    assert len(lane._heap) < 100
    assert math.isfinite(lane.virtual)
