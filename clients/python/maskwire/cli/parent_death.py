"""Executes a command that gets SIGTERM when its parent dies, even by SIGKILL:  parent_death.py PARENT_PID COMMAND...

This is a script that calls exec, since code between fork and exec does not work: gRPC's fork handlers abort in a child
of a process that has used gRPC.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # see prctl(2); Linux only, so on other systems children outlive a killed parent

if __name__ == "__main__":
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(sys.argv[1]):
            sys.exit(1)  # the parent died before prctl was called
    os.execvp(sys.argv[2], sys.argv[2:])
