"""Priorities of threads."""

import os
import sys
import threading
import time

_NICE = 5
_SWITCH_S = 0.0005
_RESTS = 2
_UNTIRED_S = 0.02


def give_way() -> None:
    """Lowers the priority of this thread below the event loop's, so that answers and refusals do not wait for work.

    An initializer for executors' workers. Threads that the worker starts, such as an inference runtime's, inherit the
    priority. Does nothing on systems other than Linux, where threads have no priorities of their own.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def switch_soon() -> None:
    """Lets a thread that wants Python's interpreter have it after half a millisecond, not five.

    To be called once in a process. The event loop wants it back after each look at its sockets, and gRPC's own thread
    for each thing that has happened there: while other threads compute, a call waits for it a dozen times.
    """
    sys.setswitchinterval(_SWITCH_S)


class Rests:
    """Lets other threads have Python's interpreter for twice as long as this one has had it since the last rest.

    For work that may take tenths of a second of it: a thread that always wants it gets it back each time that the event
    loop has looked at its sockets, and keeps it for half a millisecond, or much longer where its processor is given to
    others meanwhile. What takes little never rests.
    """

    def __init__(self) -> None:
        self._since: float | None = None

    def __call__(self) -> None:
        """Rests, if it is time to. To be called between pieces of the work, on its thread."""
        now = time.thread_time()
        if self._since is None:
            self._since = now + _UNTIRED_S
        elif now > self._since:
            time.sleep(_RESTS * (now - self._since))
            self._since = now
