"""Ports for servers that `maskwire up` and tests start."""

import pytest
from maskwire.cli.free_ports import free_port, listen
from maskwire.cli.up import _choose_ports
from maskwire.errors import MaskwireError


def test_free_ports_are_those_of_servers_and_differ() -> None:
    (first, second), given, free = _choose_ports("127.0.0.1", {"--a": (0, 2), "--b": (50_900, 1), "--c": (0, 500)})
    assert given == [50_900]
    assert len({first, second, *free}) == 502
    assert all(10_000 <= port < 32_768 for port in (first, second, *free))


def test_ports_that_are_taken_are_not_chosen() -> None:
    all_but_one = set(range(10_000, 32_768)) - {free_port()}
    (left,) = set(range(10_000, 32_768)) - all_but_one
    assert free_port(taken=all_but_one) == left


def test_a_host_that_is_not_this_machine_is_an_error() -> None:
    with pytest.raises(MaskwireError, match="cannot listen on") as raised:
        _choose_ports("192.0.2.1", {"--a": (0, 1)})
    assert (raised.value.reason, raised.value.field) == ("CANNOT_LISTEN", "--a")


def test_ports_in_use_are_named_with_their_option() -> None:
    with listen("127.0.0.1", 0) as held:
        port = held.getsockname()[1]
        with pytest.raises(MaskwireError, match=f"port {port} is in use") as raised:
            _choose_ports("127.0.0.1", {"--a": (0, 1), "--b": (port, 1)})
    assert raised.value.field == "--b"
