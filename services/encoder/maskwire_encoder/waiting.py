"""Who is next: requests of many callers, in a fair order."""

import math
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")

BULK_SHARE = 8
"""While others wait too, one place in this many is for bulk work, so that it never starves."""


@dataclass(eq=False)
class Demand:
    """Who wants a piece of work, and how soon.

    Attributes:
        caller: Whom fairness counts as one.
        bulk: Whether it lets others pass.
        deadline: When nobody wants it any more, in the event loop's time.
    """

    caller: Hashable
    bulk: bool = False
    deadline: float = math.inf

    def join(self, other: "Demand") -> None:
        """Somebody else wants the same: the more urgent of both counts, and the later deadline."""
        self.bulk = self.bulk and other.bulk
        self.deadline = max(self.deadline, other.deadline)


@dataclass(eq=False)
class Ticket(Generic[Item]):
    """A place in the waiting room.

    Attributes:
        kind: What may share a batch is of one kind.
        item: The work.
        demand: Who wants it.
        queued: When it came, in the event loop's time.
        answer: A future for its outcome.
        bulk: The line it stands in.
    """

    kind: Hashable
    item: Item
    demand: Demand
    queued: float
    answer: Any
    bulk: bool


class _Line(Generic[Item]):
    """Tickets of one kind and urgency: one of each caller in turn, each caller's own in the order they came."""

    def __init__(self) -> None:
        self._callers: OrderedDict[Hashable, dict[Ticket[Item], None]] = OrderedDict()
        self.count = 0

    def add(self, ticket: Ticket[Item]) -> None:
        self._callers.setdefault(ticket.demand.caller, {})[ticket] = None
        self.count += 1

    def discard(self, ticket: Ticket[Item]) -> None:
        own = self._callers[ticket.demand.caller]
        del own[ticket]
        if not own:
            del self._callers[ticket.demand.caller]
        self.count -= 1

    def ahead(self, caller: Hashable) -> int:
        """Tickets that go before another one of a caller, as things are."""
        own = len(self._callers.get(caller, ()))
        return sum(min(len(tickets), own + 1) for other, tickets in self._callers.items() if other != caller) + own

    def pop(self) -> Ticket[Item]:
        caller, own = self._callers.popitem(last=False)
        ticket = next(iter(own))
        del own[ticket]
        if own:
            self._callers[caller] = own  # behind the others
        self.count -= 1
        return ticket


class WaitingRoom(Generic[Item]):
    """Tickets that wait. Callers take turns, kinds take turns, and bulk work lets the rest pass, up to a share."""

    def __init__(self) -> None:
        self._lines: OrderedDict[Hashable, dict[bool, _Line[Item]]] = OrderedDict()  # kind -> bulk -> line
        self._passed = 0  # how many have overtaken bulk work beyond its share

    def __len__(self) -> int:
        return self._count((False, True))

    @property
    def bulk(self) -> int:
        """Tickets of bulk work."""
        return self._count((True,))

    def add(self, ticket: Ticket[Item]) -> None:
        lines = self._lines.setdefault(ticket.kind, {False: _Line(), True: _Line()})
        lines[ticket.bulk].add(ticket)

    def discard(self, ticket: Ticket[Item]) -> None:
        """Takes out a ticket that waits here."""
        lines = self._lines[ticket.kind]
        lines[ticket.bulk].discard(ticket)
        if not any(line.count for line in lines.values()):
            del self._lines[ticket.kind]

    def ahead(self, demand: Demand) -> int:
        """Tickets that would go before one with this demand, or most of them, as things are."""
        same = sum(lines[demand.bulk].ahead(demand.caller) for lines in self._lines.values())
        if demand.bulk:
            return same + min(len(self) - self.bulk, same * (BULK_SHARE - 1))
        return same + min(self.bulk, same // (BULK_SHARE - 1))

    def hurry(self, ticket: Ticket[Item]) -> None:
        """Moves a ticket whose demand is not bulk any more."""
        if ticket.bulk and not ticket.demand.bulk:
            self.discard(ticket)
            ticket.bulk = False
            self.add(ticket)

    def next_kind(self) -> Hashable:
        """The kind whose turn it is; there must be one."""
        bulk = self._bulk_turn()
        return next(kind for kind, lines in self._lines.items() if lines[bulk].count)

    def count(self, kind: Hashable) -> int:
        """Tickets of a kind."""
        return sum(line.count for line in self._lines[kind].values())

    def take(self, most: int) -> list[Ticket[Item]]:
        """Takes up to `most` tickets of the kind whose turn it is, in the order in which they should be served."""
        kind = self.next_kind()
        lines = self._lines[kind]
        self._lines.move_to_end(kind)
        taken: list[Ticket[Item]] = []
        while len(taken) < most and (lines[False].count or lines[True].count):
            both = len(self) > self.bulk > 0
            bulk = bool(lines[True].count) and (self._bulk_turn() or not lines[False].count)
            taken.append(lines[bulk].pop())
            self._passed += 0 if not both else 1 - BULK_SHARE if bulk else 1
        if not self.bulk:
            self._passed = 0
        if not any(line.count for line in lines.values()):
            del self._lines[kind]
        return taken

    def _bulk_turn(self) -> bool:
        bulk = self.bulk
        return bulk > 0 and (bulk == len(self) or self._passed >= BULK_SHARE - 1)

    def _count(self, urgencies: Iterable[bool]) -> int:
        return sum(lines[bulk].count for lines in self._lines.values() for bulk in urgencies)
