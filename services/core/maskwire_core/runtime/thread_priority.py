"""Who goes first where threads outnumber cores."""

import os
import sys
import threading

_NICE = 5


def give_way() -> None:
    """Makes this thread, a worker, go after the thread that talks to callers: a refusal shall not wait for work.

    An initializer of executors. Threads that this one starts, such as a runtime's, inherit it.
    """
    if sys.platform == "linux":  # where a thread has a priority of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
