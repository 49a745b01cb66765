"""What the tests' servers are forked from."""

import subprocess
import sys
from pathlib import Path

from testing.paths import ROOT
from testing.processes import wait_until
from testing.warm import run_module


def test_servers_and_commands_find_what_they_import() -> None:
    """The process that forks them passes over errors of what it imports: a module that has failed is not there."""
    ask = "import sys; print('testing.preloaded' in sys.modules)\n"
    assert "True" in run_module("code", typed=ask).stdout


def test_a_server_that_a_failed_test_leaves_does_not_keep_the_tests_from_ending() -> None:
    code = "import testing.warm as w; w._FORKS.set_forkserver_preload([]); print(w.Warm('http.server', ['0']).pid)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=60)
    wait_until(lambda: not Path(f"/proc/{int(ended.stdout)}").exists())
