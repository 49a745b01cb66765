"""Processes that run a module as `python -m` does, forked from one that has already imported what the servers import.

An encoder takes seconds of a processor to import torch, and the tests start a hundred servers and run three hundred
commands. What runs is the same program with the same arguments in a process of its own; only the start of the
interpreter is shared. Where the start itself or memory is the subject, `processes.running` starts a Python.
"""

import atexit
import contextlib
import ctypes
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from testing.paths import ROOT
from testing.processes import stopping

_PR_SET_PDEATHSIG = 1
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["testing.preloaded"])


@atexit.register
def _kill_what_is_left() -> None:
    """A test that failed may have left a server, for whose end multiprocessing would wait after this."""
    for process in multiprocessing.active_children():
        process.kill()


class Warm:
    """A process that runs a module. It can be waited for and stopped like a `subprocess.Popen`.

    Args:
        module: What `python -m` would be given.
        arguments: The words after it.
        environment: Variables that are added to this process's own.
        folder: Where it runs.
        files: Paths of files for its standard input, output and error; None leaves what this process has.
    """

    def __init__(
        self,
        module: str,
        arguments: list[str],
        environment: dict[str, str] | None = None,
        folder: Path = ROOT,
        files: tuple[Path | None, Path | None, Path | None] = (None, None, None),
    ) -> None:
        variables = {**os.environ, **(environment or {})}
        self._process: ForkServerProcess = _FORKS.Process(
            target=_run, args=(module, arguments, variables, folder, files)
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        """Returns its exit code, None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Waits until it has ended, and returns its exit code.

        Raises:
            subprocess.TimeoutExpired: If it still runs after `timeout` seconds.
        """
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
        return code

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


@contextlib.contextmanager
def running_module(
    module: str, *arguments: str, environment: dict[str, str] | None = None, stderr: Path | None = None
) -> Iterator[Warm]:
    """Runs a module in the repository's root folder; terminates it at the end, and kills it if that takes 30 s.

    Args:
        module: What `python -m` would be given.
        arguments: The words after it.
        environment: Variables that are added to this process's own.
        stderr: A file for its messages; by default they go where this process's go.
    """
    process = Warm(module, list(arguments), environment, files=(None, None, stderr))
    with stopping(process):
        yield process


def run_module(
    module: str,
    *arguments: str,
    environment: dict[str, str] | None = None,
    folder: Path = ROOT,
    typed: str = "",
    timeout: float = 200,
) -> subprocess.CompletedProcess[str]:
    """Runs a module to its end.

    Args:
        module: What `python -m` would be given.
        arguments: The words after it.
        environment: Variables that are added to this process's own.
        folder: Where it runs.
        typed: Its standard input.
        timeout: Seconds after which it is killed.

    Returns:
        Its exit code and what it wrote to standard output and standard error.

    Raises:
        subprocess.TimeoutExpired: If it was killed.
    """
    with tempfile.TemporaryDirectory() as written:
        files = [Path(written) / name for name in ("in", "out", "err")]
        files[0].write_text(typed)
        process = Warm(module, list(arguments), environment, folder, (files[0], files[1], files[2]))
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        return subprocess.CompletedProcess([module, *arguments], code, files[1].read_text(), files[2].read_text())


def _run(
    module: str,
    arguments: list[str],
    environment: dict[str, str],
    folder: Path,
    files: tuple[Path | None, Path | None, Path | None],
) -> None:
    # The process that forks this one ends with the tests; as with processes.running, nothing is left then.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell runs the tests in the background
    for number, file in enumerate(files):
        if file is not None:
            opened = os.open(file, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(opened, number)
            os.close(opened)
    if files[0] is not None:  # multiprocessing has put /dev/null there
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
