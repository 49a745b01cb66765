"""Runs a command that ends when this command's parent does, even by SIGKILL:  leash.py PARENT_PID COMMAND...

Run as a script of its own, before exec, rather than between fork and exec: gRPC's fork handlers abort in a child of a
process that has used it.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # prctl(2), Linux only; elsewhere children of a killed parent live on

if __name__ == "__main__":
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(sys.argv[1]):
            sys.exit(1)  # the parent was gone before the kernel was asked
    os.execvp(sys.argv[2], sys.argv[2:])
