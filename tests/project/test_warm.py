"""What the tests' servers are forked from."""

from testing.preloaded import MODULES
from testing.warm import run_module


def test_servers_and_commands_find_what_they_import() -> None:
    ask = f"import sys; print([name for name in {MODULES!r} if name not in sys.modules])\n"
    assert "[]" in run_module("code", typed=ask).stdout
