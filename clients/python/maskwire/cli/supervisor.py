"""Child processes that are kept running."""

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
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.1, 5.0
_STEADY_S = 30
_KILL_AFTER_S = 30


class ChildFailed(MaskwireError):
    """A process ended before it was ready."""


@dataclass
class Child:
    """One process.

    Attributes:
        name: For messages.
        command: Program and arguments.
        ready: Tells whether the process does its work.
        environment: Added to this process's own.
        log: Where the process writes its messages, if not to standard error.
    """

    name: str
    command: Sequence[str]
    ready: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)
    log: Path | None = None
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0
    pause_s: float = _FIRST_PAUSE_S
    restart_at: float | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            leashed(self.command),
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            start_new_session=True,  # Ctrl-C reaches this process alone, which then stops its children in order
        )
        self.started_at = time.monotonic()
        self.restart_at = None


class Supervisor:
    """Starts groups of children, restarts those that die, and stops the groups in the reverse order.

    Args:
        say: Prints a line for the user.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._groups: list[Sequence[Child]] = []
        self._stopping: deque[int] = deque()

    @property
    def children(self) -> Sequence[Child]:
        return [child for group in self._groups for child in group]

    def __enter__(self) -> "Supervisor":
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda received, _: self._stopping.append(received))
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, *children: Child) -> None:
        """Starts children together and waits until all are ready.

        Raises:
            ChildFailed: One ended, or the user wants to stop.
        """
        self._groups.append(children)
        for child in children:
            child.start()
        while not all(child.ready() for child in children):
            for child in children:
                if child.process is not None and (code := child.process.poll()) is not None:
                    told = child.log.read_text().strip() if child.log is not None and child.log.exists() else ""
                    raise ChildFailed(
                        f"the {child.name} did not start ({_reason(code)}) {told}".strip(), "CHILD_FAILED"
                    )
            if self._stopping:
                raise KeyboardInterrupt
            time.sleep(_POLL_S)

    def run(self) -> None:
        """Restarts what dies, sooner at first and later the more often it does, until SIGINT or SIGTERM."""
        while not self._stopping:
            now = time.monotonic()
            for child in self.children:
                if child.restart_at is not None:
                    if now >= child.restart_at:
                        child.start()
                elif child.process is not None and (code := child.process.poll()) is not None:
                    if now - child.started_at > _STEADY_S:
                        child.pause_s = _FIRST_PAUSE_S
                    self._say(f"the {child.name} ended ({_reason(code)}); starting it again")
                    child.restart_at = now + child.pause_s
                    child.pause_s = min(2 * child.pause_s, _LAST_PAUSE_S)
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """Lets every child finish its work: the last group first. A second SIGINT or SIGTERM kills at once."""
        asked = len(self._stopping)
        for group in reversed(self._groups):
            processes = {child.name: child.process for child in group if child.process is not None}
            for process in processes.values():
                process.terminate()
            give_up = time.monotonic() + _KILL_AFTER_S
            for name, process in processes.items():
                while process.poll() is None:
                    if time.monotonic() > give_up or len(self._stopping) > max(1, asked):
                        self._say(f"killing the {name}")
                        process.kill()
                        process.wait()
                    time.sleep(_POLL_S / 5)


def _reason(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def leashed(command: Sequence[str]) -> list[str]:
    """The command, ending when this process does."""
    return [sys.executable, "-I", "-S", parent_death.__file__, str(os.getpid()), *command]
