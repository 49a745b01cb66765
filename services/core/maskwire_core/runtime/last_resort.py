"""Ends a process that does not end by itself."""

import logging
import os
import threading

log = logging.getLogger(__name__)


def ending_within(seconds: float) -> None:
    """Has this process end within some seconds, with an error if it must be ended: whatever a client, a thread or the
    store still keeps it waiting for."""

    def end() -> None:
        log.error("still running %g s after the drain began; ending now", seconds)
        logging.shutdown()
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
