"""Supervises child processes: starts, restarts and stops them."""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from maskwire.cli import parent_death
from maskwire.errors import MaskwireError

_POLL_S = 0.1
_MIN_BACKOFF_S, _MAX_BACKOFF_S = 0.1, 5.0
_STABLE_S = 30  # a child that ran this long is restarted with the shortest backoff again
_KILL_AFTER_S = 30


class ChildFailed(MaskwireError):
    """A process exited before it was ready."""


@dataclass
class Child:
    """A child process."""

    name: str  # name for messages
    command: Sequence[str]  # program and arguments
    ready: Callable[[], bool]  # returns whether the process serves requests
    environment: Mapping[str, str] = field(default_factory=dict)  # environment variables to add to this process's own
    log: Path | None = None  # path to the process's log file, if it does not write to standard error
    process: subprocess.Popen[bytes] | None = None  # the process, once it is started
    started_at: float = 0  # monotonic time of the last start, in seconds
    backoff_s: float = _MIN_BACKOFF_S  # how long the next restart is delayed
    restart_at: float | None = None  # monotonic time of the pending restart; None if none is pending

    def start(self) -> None:
        """Starts the process."""
        self.process = subprocess.Popen(
            with_parent_death_signal(self.command),
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            umask=0o077 if self.log is not None else -1,
            start_new_session=True,  # Ctrl-C is sent to this process only, which then stops its children in order
        )
        self.started_at = time.monotonic()
        self.restart_at = None


class Supervisor:
    """Starts groups of children, restarts children that exit, and stops the groups in reverse order.

    Args:
        notify: Prints a line for the user.
    """

    def __init__(self, notify: Callable[[str], None]) -> None:
        self._notify = notify
        self._groups: list[Sequence[Child]] = []
        self._signals: deque[int] = deque()

    @property
    def children(self) -> Sequence[Child]:
        """All children, in the order in which they were started."""
        return [child for group in self._groups for child in group]

    def __enter__(self) -> "Supervisor":
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda received, _: self._signals.append(received))
        return self

    def start(self, *children: Child) -> None:
        """Starts a group of children and waits until all of them are ready.

        Raises:
            ChildFailed: A child exited.
            KeyboardInterrupt: SIGINT or SIGTERM was received.
        """
        self._groups.append(children)
        for child in children:
            child.start()
        while not all(child.ready() for child in children):
            for child in children:
                if child.process is not None and (code := child.process.poll()) is not None:
                    log = child.log.read_text().strip() if child.log is not None and child.log.exists() else ""
                    raise ChildFailed(f"the {child.name} did not start ({_reason(code)}) {log}".strip(), "CHILD_FAILED")
            if self._signals:
                raise KeyboardInterrupt
            time.sleep(_POLL_S)

    def supervise(self) -> None:
        """Restarts children that exit, with exponential backoff, until SIGINT or SIGTERM is received."""
        while not self._signals:
            now = time.monotonic()
            for child in self.children:
                if child.restart_at is not None:
                    if now >= child.restart_at:
                        child.start()
                elif child.process is not None and (code := child.process.poll()) is not None:
                    if now - child.started_at > _STABLE_S:
                        child.backoff_s = _MIN_BACKOFF_S
                    self._notify(f"the {child.name} ended ({_reason(code)}); starting it again")
                    child.restart_at = now + child.backoff_s
                    child.backoff_s = min(2 * child.backoff_s, _MAX_BACKOFF_S)
            time.sleep(_POLL_S)

    def __exit__(self, *_: object) -> None:
        """Terminates the groups in reverse order and waits until their children have drained.

        A child that takes longer than 30 s is killed; a second SIGINT or SIGTERM kills all children at once.
        """
        received = len(self._signals)
        for group in reversed(self._groups):
            processes = {child.name: child.process for child in group if child.process is not None}
            for process in processes.values():
                process.terminate()
            deadline = time.monotonic() + _KILL_AFTER_S
            for name, process in processes.items():
                while process.poll() is None:
                    if time.monotonic() > deadline or len(self._signals) > max(1, received):
                        self._notify(f"killing the {name}")
                        process.kill()
                        process.wait()
                    time.sleep(_POLL_S / 5)


def _reason(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def with_parent_death_signal(command: Sequence[str]) -> list[str]:
    """Wraps a command so that its process receives SIGTERM when this process dies (on Linux)."""
    return [sys.executable, "-I", "-S", parent_death.__file__, str(os.getpid()), *command]
