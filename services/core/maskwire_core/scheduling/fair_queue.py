"""A queue that is fair between tenants, and between the connections of each tenant."""

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

BULK_SHARE = 8
"""While interactive entries wait too, bulk entries get one unit of work in this many."""

_sequence = itertools.count(1)


@dataclass(frozen=True)
class Requester:
    """Who asks for work. Tenants have equal shares, and the connections of a tenant equal parts of its share."""

    tenant: str  # the namespace that the work is for
    connection: Hashable  # identifies one source of requests of the tenant, such as a connection or a session


@dataclass(eq=False)
class Entry:
    """One piece of work that waits."""

    requester: Requester  # who asks for it
    bulk: bool  # whether nobody waits for it right now, so that interactive entries go first
    kind: Hashable  # entries of the same kind can be served in one batch
    work: int  # units of work that it costs, at least 1
    nbytes: int  # bytes of memory that it holds while it waits


E = TypeVar("E", bound=Entry)


@dataclass(frozen=True)
class Limits:
    """What may wait, for each of the two priorities."""

    work: float = math.inf  # units of work
    nbytes: float = math.inf  # bytes


class _Flow(Generic[E]):
    """A node of the hierarchy: divides service equally among its flows. A leaf holds entries in the order they came.

    Self-clocked fair queueing (S. J. Golestani, "A self-clocked fair queueing scheme for broadband applications",
    INFOCOM 1994), at each level. A flow's tag is the virtual time at which its next entry would be completed; the
    smallest tag is served first, and virtual time is the tag that was served last. A flow that was idle starts from
    the present virtual time, so neither pausing nor a new connection brings an advantage. What a flow has used counts
    from its start, apart from its tag: which entry is next may change while it waits.
    """

    __slots__ = ("_heap", "entries", "flows", "key", "nbytes", "parent", "start", "tag", "turn", "virtual", "work")

    def __init__(self, key: Hashable, parent: "_Flow[E] | None" = None) -> None:
        self.key = key
        self.parent = parent
        self.flows: dict[Hashable, _Flow[E]] = {}
        self.entries: dict[E, None] = {}
        self.work = 0
        self.nbytes = 0
        self.start = 0 if parent is None else parent.virtual
        self.tag = 0
        self.turn = 0  # breaks ties; 0 while nothing waits here
        self.virtual: int = 0
        self._heap: list[tuple[int, int, _Flow[E]]] = []  # places whose flow has another turn by now are stale

    def head(self) -> E:
        """The entry that is served next."""
        flow = self
        while flow.flows:
            flow = flow.first()
        return next(iter(flow.entries))

    def first(self) -> "_Flow[E]":
        """The flow that is served next."""
        heap = self._heap
        while heap[0][1] != heap[0][2].turn:
            heapq.heappop(heap)
        return heap[0][2]

    def place(self, flow: "_Flow[E]") -> None:
        """Places a flow by its next entry, which may be another one now."""
        tag = flow.start + flow.head().work
        if tag == flow.tag:
            return
        flow.tag, flow.turn = tag, next(_sequence)
        heapq.heappush(self._heap, (tag, flow.turn, flow))
        if len(self._heap) > 2 * len(self.flows) + 32:
            self._heap = [place for place in self._heap if place[1] == place[2].turn]
            heapq.heapify(self._heap)


def _share(total: float, others: Sequence[int]) -> float:
    """The most that one may have of a total without having more than another who gives way for it.

    Args:
        total: What there is.
        others: What each of the others has.
    """
    left, sharers = total, len(others) + 1
    for amount in sorted(others):
        if amount * sharers >= left:
            break
        left -= amount
        sharers -= 1
    return left if math.isinf(left) else left // sharers


class FairQueue(Generic[E]):
    """Entries that wait, in two priorities. Not safe for use by several threads at once.

    In each priority, tenants that wait get equal amounts of work done; so do the kinds of a tenant, and the connections
    of a kind. When more waits than the limits allow, the tenant that has most waiting gives way, whoever came last.

    Args:
        limits: What may wait in each priority.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._entries: dict[E, None] = {}
        self._kinds: Counter[Hashable] = Counter()
        self._lanes: dict[bool, _Flow[E]] = {False: _Flow(False), True: _Flow(True)}
        self._overtaken = 0  # units of interactive work served while bulk work has been waiting for its turn

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[E]:
        return iter(self._entries)

    def add(self, entry: E) -> list[E]:
        """Adds an entry. Returns the entries that give way, which are no longer in the queue; it may be among them.

        The newest entry gives way of the longest connection of the tenant that has most work waiting, or most bytes
        where those exceed their limit. Where several have equally much, the one that adds to it gives way.
        """
        self._insert(entry)
        refused: list[E] = []
        while entry in self._entries and (victim := self._excess(entry)) is not None:
            self.discard(victim)
            refused.append(victim)
        return refused

    def discard(self, entry: E) -> bool:
        """Takes out an entry without serving it, if it is here. Returns whether it was."""
        if entry not in self._entries:
            return False
        self._remove(entry, served=False)
        return True

    def expedite(self, entry: E) -> list[E]:
        """Makes a bulk entry that waits here interactive, if there is room for it. Returns those that give way."""
        self.discard(entry)
        entry.bulk = False
        refused = self.add(entry)
        if entry in refused:
            refused.remove(entry)
            entry.bulk = True
            self._insert(entry)
        return refused

    def head(self) -> E:
        """The entry that is served next; there must be one."""
        return self._lanes[self._is_bulk_turn()].head()

    def count(self, kind: Hashable) -> int:
        """Entries of a kind."""
        return self._kinds[kind]

    def take(self, largest: Callable[[Hashable], int] = lambda _: 1) -> list[E]:
        """Takes the next entry and others of its kind, in the order in which they should be served.

        Args:
            largest: Returns how many entries of a kind may be taken together.
        """
        taken = [self.head()]
        kind = taken[0].kind
        self._remove(taken[0], served=True)
        while self._kinds[kind] and len(taken) < largest(kind):
            taken.append(self._head_of(kind))
            self._remove(taken[-1], served=True)
        return taken

    def work_until(self, requester: Requester, bulk: bool, work: int) -> int:
        """Units of work until more work of a requester would be done, itself included, if nothing else came."""
        lane = self._lanes[bulk]
        tenant = lane.flows.get(requester.tenant)
        flows = () if tenant is None else [flow for kind in tenant.flows.values() for flow in kind.flows.values()]
        own = work + sum(flow.work for flow in flows if flow.key == requester.connection)
        own += sum(min(flow.work, own) for flow in flows if flow.key != requester.connection)
        own += sum(min(flow.work, own) for key, flow in lane.flows.items() if key != requester.tenant)
        return own + min(self._lanes[not bulk].work, own * (BULK_SHARE - 1) if bulk else own // (BULK_SHARE - 1))

    def room(self, requester: Requester, bulk: bool) -> float:
        """Units of work that a requester may add before some of it would give way."""
        lane = self._lanes[bulk]
        tenant = lane.flows.get(requester.tenant)
        most = _share(self._limits.work, [flow.work for key, flow in lane.flows.items() if key != requester.tenant])
        if tenant is None:
            return most
        flows = [flow for kind in tenant.flows.values() for flow in kind.flows.values()]
        most = _share(most, [flow.work for flow in flows if flow.key != requester.connection])
        return most - sum(flow.work for flow in flows if flow.key == requester.connection)

    def _is_bulk_turn(self) -> bool:
        interactive, bulk = self._lanes[False], self._lanes[True]
        if not interactive.work or not bulk.work:
            return bulk.work > 0
        return self._overtaken >= (BULK_SHARE - 1) * bulk.head().work

    def _head_of(self, kind: Hashable) -> E:
        """The entry of a kind that is served next; there must be one."""
        lines = [
            [(tenant.start, tenant.flows[kind].head()) for tenant in lane.flows.values() if kind in tenant.flows]
            for lane in self._lanes.values()
        ]
        bulk = self._is_bulk_turn() if all(lines) else bool(lines[True])
        return min(lines[bulk], key=lambda line: line[0] + line[1].work)[1]

    def _insert(self, entry: E) -> None:
        self._entries[entry] = None
        self._kinds[entry.kind] += 1
        flow = self._lanes[entry.bulk]
        for key in (entry.requester.tenant, entry.kind, entry.requester.connection):
            flow = flow.flows.get(key) or flow.flows.setdefault(key, _Flow(key, flow))
        flow.entries[entry] = None
        while True:
            flow.work += entry.work
            flow.nbytes += entry.nbytes
            if flow.parent is None:
                break
            flow.parent.place(flow)
            flow = flow.parent

    def _remove(self, entry: E, served: bool) -> None:
        del self._entries[entry]
        self._kinds[entry.kind] -= 1
        flow = self._lanes[entry.bulk].flows[entry.requester.tenant].flows[entry.kind].flows[entry.requester.connection]
        del flow.entries[entry]
        while True:
            flow.work -= entry.work
            flow.nbytes -= entry.nbytes
            parent = flow.parent
            if parent is None:
                break
            if served:  # not always from the first flow: a batch takes entries of one kind from any
                parent.virtual = max(parent.virtual, parent.first().tag)
                flow.start += entry.work
            if flow.work:
                parent.place(flow)
            else:
                del parent.flows[flow.key]
                flow.turn = 0
            flow = parent
        interactive, bulk = self._lanes[False].work, self._lanes[True].work
        if served:
            self._overtaken += -(BULK_SHARE - 1) * entry.work if entry.bulk else entry.work
        if not (interactive and bulk) or self._overtaken < 0:  # a batch may take bulk entries before their turn
            self._overtaken = 0

    def _excess(self, newcomer: E) -> E | None:
        """The entry that gives way; None if the limits are kept."""
        lane = self._lanes[newcomer.bulk]
        too_much_work = lane.work > self._limits.work
        if not too_much_work and lane.nbytes <= self._limits.nbytes:
            return None

        def size(flow: _Flow[E]) -> int:
            return flow.work if too_much_work else flow.nbytes

        tenant = max(lane.flows.values(), key=lambda flow: (size(flow), flow.key == newcomer.requester.tenant))
        connections = (flow for kind in tenant.flows.values() for flow in kind.flows.values())
        longest = max(connections, key=lambda flow: (size(flow), newcomer in flow.entries))
        return next(reversed(longest.entries))
