"""Priorities of threads."""

import os
import sys
import threading

_NICE = 5


def give_way() -> None:
    """Lowers the priority of this thread below the event loop's, so that answers and refusals do not wait for work.

    An initializer for executors' workers. Threads that the worker starts, such as an inference runtime's, inherit the
    priority. Does nothing on systems other than Linux, where threads have no priorities of their own.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
