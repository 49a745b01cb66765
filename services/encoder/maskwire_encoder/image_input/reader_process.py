"""A process that reads image files, seen from the encoder."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from maskwire.pictures import Picture, PictureError, Stretch
from maskwire.pictures.cost import Cost
from maskwire.pictures.errors import too_costly, unreadable

from maskwire_encoder.image_input.shared_buffer import SharedBuffer

_START_S = 60  # longest time until a process is ready
_WALL_FACTOR = 10  # a process that has used little of its processor time after this many times as long stands still
_MOST_ANSWER_BYTES = 1 << 16


@dataclass(frozen=True)
class Job:
    """A file to decode, and what that may take."""

    data: bytes  # content of the file
    stretch: Stretch  # how samples of more than 8 bits are mapped to 8 bits
    max_pixels: int  # largest width x height to decode
    cost: Cost  # most memory and processor time that the process may take for it


class Died(Exception):
    """The process was gone before it had begun a job."""


class Killed(Exception):
    """The process was killed: because its caller left, or by the system, which had no memory left."""


class ReaderProcess:
    """Starts a process that reads image files, one at a time; see `reader_main`.

    Used by one thread at a time, apart from `kill`.

    Args:
        buffer_bytes: Size of the shared memory: of the largest file, and of the pixels of the largest picture.
    """

    def __init__(self, buffer_bytes: int) -> None:
        self._buffer = SharedBuffer(buffer_bytes)
        command = [sys.executable, "-m", "maskwire_encoder.image_input.reader_main", str(self._buffer.fd)]
        self._process = subprocess.Popen(
            [*command, str(buffer_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[self._buffer.fd],
            # A pool of threads in each process would be memory for nothing.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C in a terminal is for the encoder, which drains
        )
        self._is_ready = False
        self._is_late = False

    @property
    def pid(self) -> int:
        """The process's ID."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def decode(self, job: Job) -> tuple[Picture, list[str]]:
        """Decodes a file.

        Returns:
            The picture, whose pixels are valid until the next call or `close`, and the libraries' warnings.

        Raises:
            PictureError: The file cannot be decoded, or not within its limits. After that, see `alive`.
            Killed: The process was killed, which need not be the file's fault.
            Died: The process was gone before.
        """
        self.wait_until_ready()
        self._buffer.write_file(job.data)
        order = {
            "size": len(job.data),
            "max_pixels": job.max_pixels,
            "stretch": job.stretch,
            "memory_bytes": job.cost.bytes,
            "cpu_s": job.cost.cpu_s,
        }
        try:
            self._send(order)
        except BrokenPipeError as error:
            self._process.wait()
            raise Died from error
        answer = self._answer(job.cost.cpu_s * _WALL_FACTOR)
        if answer is None:
            raise self._why(job.cost)
        if "reason" in answer:
            raise PictureError(str(answer["reason"]), str(answer["message"]))
        picture = Picture(self._buffer.pixels(answer["place"]), answer["format"], answer["stretch"])
        return picture, answer["warnings"]

    def wait_until_ready(self) -> None:
        """Waits until the process has started.

        Raises:
            Died: It has not.
        """
        if not self._is_ready and self._answer(_START_S) is None:
            self._process.wait()
            raise Died
        self._is_ready = True

    def trim(self) -> None:
        """Gives back shared memory that a large picture has left."""
        self._buffer.trim()

    def kill(self) -> None:
        """Ends the process at once. On any thread."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def close(self) -> None:
        """Ends the process, waits for its end and gives its memory back."""
        self.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self._buffer.close()

    def _send(self, order: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()

    def _answer(self, most_s: float) -> dict[str, Any] | None:
        """Waits for a line of the process. Returns None if it has ended, or was ended because it took too long."""
        assert self._process.stdout is not None
        pipe, line, ends_at = self._process.stdout.fileno(), b"", time.monotonic() + most_s
        while not line.endswith(b"\n"):
            ready = select.poll()
            ready.register(pipe, select.POLLIN)
            if not ready.poll(max(0, ends_at - time.monotonic()) * 1e3):
                self._is_late = True
                self.kill()
                return None
            part = os.read(pipe, _MOST_ANSWER_BYTES)
            line += part
            if not part or len(line) > _MOST_ANSWER_BYTES:
                self.kill()
                return None
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _why(self, cost: Cost) -> Exception:
        """The error for a file whose process has ended."""
        code = self._process.wait()
        if self._is_late or code == -signal.SIGXCPU:
            return too_costly(f"decoding the file takes longer than {cost.cpu_s:.0f} s, the most for its size")
        if code == -signal.SIGKILL:
            return Killed()
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return unreadable(f"the file makes its decoder crash ({how}); save it again with another program")
