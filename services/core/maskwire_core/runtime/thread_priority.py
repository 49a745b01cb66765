"""Priorities of threads."""

import os
import sys
import threading

_NICE = 5
_SWITCH_S = 0.0005


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
