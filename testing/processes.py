"""Processes that are started, waited for and always stopped."""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Protocol

from maskwire.cli.supervisor import with_parent_death_signal

from testing.paths import ROOT


class Process(Protocol):
    """What ends, with a code: a `subprocess.Popen` or a `warm.Warm`."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


def wait_until(condition: Callable[[], bool], seconds: float = 200, process: Process | None = None) -> None:
    """Polls a condition until it holds.

    Args:
        condition: Called after 2 ms, then ever more rarely, at last every 50 ms.
        seconds: How long to wait.
        process: The process that is to bring the condition about, if its end means that it never will.

    Raises:
        AssertionError: If the time is over or the process has ended.
    """
    deadline, pause_s = time.monotonic() + seconds, 0.002
    while not condition():
        if process is not None and process.poll() is not None:
            raise AssertionError(f"the process ended with {process.returncode}")
        assert time.monotonic() < deadline, "not in time"
        time.sleep(pause_s)
        pause_s = min(0.05, 1.5 * pause_s)


def wait_until_still(value: Callable[[], int], still_s: float) -> None:
    """Polls a number until it is above 0 and has not changed for so many seconds. Raises AssertionError after 60 s."""
    seen, since = 0, time.monotonic()

    def is_still() -> bool:
        nonlocal seen, since
        if (now := value()) != seen:
            seen, since = now, time.monotonic()
        return seen > 0 and time.monotonic() - since >= still_s

    wait_until(is_still, 60)


@contextlib.contextmanager
def running(
    command: Sequence[str], environment: dict[str, str] | None = None, stderr: IO[bytes] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a command in the repository's root folder; terminates it at the end, and kills it if that takes 30 s.

    Args:
        command: Program and arguments.
        environment: Variables that are added to this process's own.
        stderr: An open file for the command's messages; by default they go where this process's go.
    """
    process = subprocess.Popen(
        with_parent_death_signal(command), cwd=ROOT, env={**os.environ, **(environment or {})}, stderr=stderr
    )
    with stopping(process):
        yield process


@contextlib.contextmanager
def stopping(process: Process) -> Iterator[None]:
    """Terminates a process when the body ends, and kills it if that takes 30 s."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def resident_bytes(pid: int | str) -> int:
    """Returns the resident memory of a process, given its id or "self"."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def available_bytes() -> int:
    """Returns the memory that the machine has for more processes (Linux)."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))


def children(pid: int) -> list[int]:
    """Returns the ids of the processes that a process has started."""
    return [int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()]


def resident_bytes_with_children(pid: int) -> int:
    """Returns the resident memory of a process and of those that it has started; pages that they share count twice."""
    total = 0
    for each in (pid, *children(pid)):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            total += resident_bytes(each)
    return total


def cpu_seconds(pid: int) -> float:
    """Returns the processor time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def forget_peak(pid: int | str) -> None:
    """Lets `peak_bytes` of a process begin anew (Linux)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_bytes(pid: int | str) -> int:
    """Returns the most resident memory that a process had, given its id or "self"."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
