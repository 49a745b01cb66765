"""How much fits into one answer."""

import threading

from maskwire_core.errors import ResourceExhausted
from maskwire_core.rpc.server import MAX_MESSAGE_BYTES
from maskwire_core.scheduling.byte_budget import Account

MAX_ANSWER_BYTES = MAX_MESSAGE_BYTES * 3 // 4
"""Bytes of masks in one answer; the rest of the largest message is for what surrounds them."""

COPIES = 2
"""How often an answer is in memory until it is read: as a message, and as bytes that are being sent."""

MAX_COORDINATES = 1 << 21
"""Coordinates of polygons in one answer. On the wire they are small; as numbers in Python or in JSON they are not."""

_COORDINATE_BYTES = 4  # of a message


class AnswerRoom:
    """Counts what is made for one answer, before it is kept. The worker threads of a request share one.

    Args:
        memory: Of the call, which has the answer until it is read; None where nobody counts it.
        nbytes: Bytes that fit.
        coordinates: Coordinates of polygons that fit.
        known_bytes: Of the parts whose size is known. Their memory is taken at once, before any work.

    Raises:
        ResourceExhausted: TOO_MUCH_IN_PROGRESS.
    """

    def __init__(
        self,
        memory: Account | None = None,
        nbytes: int = MAX_ANSWER_BYTES,
        coordinates: int = MAX_COORDINATES,
        known_bytes: int = 0,
    ) -> None:
        self._memory = memory
        self._limits = nbytes, coordinates
        self._nbytes = self._coordinates = 0
        self._taken_ahead = known_bytes
        self._lock = threading.Lock()
        if memory is not None and known_bytes:
            memory.take(COPIES * known_bytes)

    def take(self, nbytes: int, coordinates: int = 0) -> None:
        """Takes room for a part of the answer.

        Raises:
            ResourceExhausted: ANSWER_TOO_LARGE: the answer would not fit; TOO_MUCH_IN_PROGRESS: nor would it into the
                memory of the tenant's calls.
        """
        with self._lock:
            self._nbytes += nbytes
            self._coordinates += coordinates
            taken = self._nbytes, self._coordinates
            more = max(0, nbytes - self._taken_ahead)
            self._taken_ahead -= nbytes - more
        if taken[0] > self._limits[0]:
            raise _too_large(f"the masks so far have {taken[0]} bytes; an answer has at most {self._limits[0]}")
        if taken[1] > self._limits[1]:
            raise _too_large(
                f"the polygons so far have {taken[1]} coordinates; an answer has at most {self._limits[1]}"
            )
        if self._memory is not None:
            self._memory.take(COPIES * more + _COORDINATE_BYTES * coordinates)


def _too_large(found: str) -> ResourceExhausted:
    return ResourceExhausted(
        "ANSWER_TOO_LARGE", f"{found}. Ask for RLE, or for fewer prompts at once", field="output.formats"
    )
