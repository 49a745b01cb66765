"""How many files a process may have open, connections included."""

import contextlib
import resource


def raise_file_limit(most: int) -> int:
    """Lets the process have as many files as the system permits it, up to `most`; never fewer than it may have already.
    Where each connection is a file, whoever opens a thousand would otherwise keep all others out of many systems'
    servers. Returns how many it may have, or `most` if there is no limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most if hard == resource.RLIM_INFINITY else min(hard, most)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return wanted
    return most if soft == resource.RLIM_INFINITY else soft
