"""Memory that decoding large files may take, all together."""

import contextlib
import threading
from collections.abc import Iterator

from maskwire_encoder.image_input.reader_pool import Abandoned, Handle

_LOOK_S = 0.25


class DecodeMemory:
    """Lets files begin while what they may take fits.

    Args:
        total: Bytes, all together. No file may take more.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._taken = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, size: int, handle: Handle) -> Iterator[None]:
        """Takes bytes until the body ends, when there are enough.

        Raises:
            Abandoned: Nobody wants the file any more.
        """
        with self._changed:
            while self._taken + size > self.total:
                if handle.left:
                    raise Abandoned
                self._changed.wait(_LOOK_S)
            self._taken += size
        try:
            yield
        finally:
            with self._changed:
                self._taken -= size
                self._changed.notify_all()
