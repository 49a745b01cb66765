"""By how much processes grow while they get damaged input."""

import contextlib
from collections.abc import Iterator

from testing.processes import children, forget_peak, peak_bytes, resident_bytes


class Growth:
    """By how much processes grow, at their most, with the processes that they have started.

    Attributes:
        seen: For each surface, the processes that grew and by how many MiB, or "+0".
        wrong: Descriptions of those that grew by too much.
    """

    def __init__(self) -> None:
        self.seen: dict[str, str] = {}
        self.wrong: list[str] = []

    @contextlib.contextmanager
    def during(self, surface: str, most_mib: int, **pids: int) -> Iterator[None]:
        """Measures processes, given by name, while the body runs. Of the processes that they have started, the most of
        each that lives at the end is added up; one that is new counts as a whole."""
        before = {name: _begun(pid) for name, pid in pids.items()}
        yield
        grown = {name: (_most(pid) - before[name]) >> 20 for name, pid in pids.items()}
        self.seen[surface] = ", ".join(f"{name} {mib:+}" for name, mib in grown.items() if mib > 0) or "+0"
        self.wrong += [
            f"{surface}: {name} grew by {mib} MiB, of at most {most_mib}"
            for name, mib in grown.items()
            if mib > most_mib
        ]


def _begun(pid: int) -> int:
    """Lets the peaks of a process and of its children begin anew. Returns the memory that they have now."""
    total = 0
    for each in (pid, *children(pid)):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            forget_peak(each)
            total += resident_bytes(each)
    return total


def _most(pid: int) -> int:
    total = 0
    for each in (pid, *children(pid)):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, StopIteration):  # it has ended
            total += peak_bytes(each)
    return total
