"""What the tests' servers are forked from."""

from testing.warm import run_module


def test_servers_and_commands_find_what_they_import() -> None:
    """The process that forks them passes over errors of what it imports: a module that has failed is not there."""
    ask = "import sys; print('testing.preloaded' in sys.modules)\n"
    assert "True" in run_module("code", typed=ask).stdout
