"""The processes that read image files for an encoder."""

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from maskwire.pictures import Picture
from maskwire.pictures.errors import too_costly

from maskwire_encoder.image_input.reader_process import Died, Job, Killed, ReaderProcess

T = TypeVar("T")

log = logging.getLogger(__name__)

_ATTEMPTS = 2  # a process that was killed is nobody's fault; a second one is the file's


class Abandoned(Exception):
    """Everybody who wanted a file decoded has left."""


class Handle:
    """A file that is decoded or will be; lets whoever wanted it leave."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: ReaderProcess | None = None
        self._left = False

    def leave(self) -> None:
        """Ends the work on the file. On any thread."""
        with self._lock:
            self._left = True
            if self._process is not None:
                self._process.kill()

    @property
    def left(self) -> bool:
        """Whether nobody wants the file any more."""
        return self._left

    @contextlib.contextmanager
    def on(self, process: ReaderProcess) -> Iterator[None]:
        """Says which process works on the file while the body runs.

        Raises:
            Abandoned: Nobody wants the file any more.
        """
        with self._lock:
            if self._left:
                raise Abandoned
            self._process = process
        try:
            yield
        finally:
            with self._lock:
                self._process = None


class ReaderPool:
    """Keeps processes that read image files; each reads one at a time, and one that dies is replaced.

    Args:
        size: Number of processes.
        buffer_bytes: Size of the memory shared with each; see `ReaderProcess`.
    """

    def __init__(self, size: int, buffer_bytes: int) -> None:
        self._buffer_bytes = buffer_bytes
        self._idle: queue.SimpleQueue[ReaderProcess] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._all: set[ReaderProcess] = set()
        self._closed = False
        for _ in range(size):
            self._idle.put(self._start())

    def read(self, job: Job, handle: Handle, use: Callable[[Picture, list[str]], T]) -> T:
        """Decodes a file in a process that is free, and waits for one if none is.

        Args:
            job: The file and its limits.
            handle: Lets those leave who want the file.
            use: Makes the result from the picture, whose pixels are gone afterwards, and the libraries' warnings.

        Raises:
            PictureError: The file cannot be decoded, or not within its limits.
            Abandoned: Everybody has left.
        """
        process = self._idle.get()
        try:
            for _ in range(_ATTEMPTS):
                if not process.alive:
                    process = self._replace(process)
                try:
                    with handle.on(process):
                        picture, warnings = process.decode(job)
                except (Died, Killed):
                    continue
                result = use(picture, warnings)
                process.trim()
                return result
            if handle.left:
                raise Abandoned
            raise too_costly("each process that decodes the file is killed, probably for want of memory")
        finally:
            if not process.alive:  # replaced now, so that it is warm when the next file comes
                process = self._replace(process)
            self._idle.put(process)

    @property
    def pids(self) -> list[int]:
        """IDs of the processes."""
        with self._lock:
            return [process.pid for process in self._all]

    def wait_until_ready(self) -> None:
        """Waits until all processes have started.

        Raises:
            RuntimeError: One has not.
        """
        for process in list(self._all):
            try:
                process.wait_until_ready()
            except Died as error:
                raise RuntimeError("a process that reads images cannot be started") from error

    def close(self) -> None:
        """Ends all processes."""
        with self._lock:
            self._closed = True
            ending, self._all = self._all, set()
        for process in ending:
            process.kill()

    def _start(self) -> ReaderProcess:
        process = ReaderProcess(self._buffer_bytes)
        with self._lock:
            self._all.add(process)
            if self._closed:
                process.kill()
        return process

    def _replace(self, process: ReaderProcess) -> ReaderProcess:
        """Returns a new process for one that has ended; the same one if none can be started."""
        try:
            started = self._start()
        except OSError as error:
            log.error("no process that reads images can be started: %s", error)
            return process
        with self._lock:
            self._all.discard(process)
        process.close()
        return started
