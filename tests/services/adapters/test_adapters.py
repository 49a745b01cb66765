"""What the adapters for labelling tools share."""

import pytest
from maskwire.cli.free_ports import free_port

from testing.adapters import adapter
from testing.servers import Stack
from testing.warm import run_module


@pytest.mark.parametrize("command", ["label-studio", "cvat", "anylabeling"])
def test_help_teaches(command: str) -> None:
    shown = run_module("maskwire_adapters", command, "--help").stdout
    assert "--port" in shown
    assert "MASKWIRE_DECODER" in shown


@pytest.mark.parametrize("command", ["label-studio", "cvat", "anylabeling"])
def test_a_model_that_is_not_served_is_refused_at_the_start(stack: Stack, command: str) -> None:
    arguments = [command, "--port", str(free_port()), "--encoder", stack.encoder, "--decoder", stack.decoder]
    ended = run_module("maskwire_adapters", *arguments, "--model", "dmeo")
    assert ended.returncode == 1
    assert ended.stderr == (
        "error: no model 'dmeo'; did you mean 'demo'? (the adapter was started with --model dmeo)\n"
    )


def test_an_adapter_may_be_started_before_the_servers(stack: Stack) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    with adapter(stack, "cvat", "--encoder", nobody) as http:
        assert http.get("/api/functions").is_success


def test_web_pages_may_not_use_an_adapter(stack: Stack) -> None:
    """Neither of another origin nor by a name that was made to lead here."""
    with adapter(stack, "cvat", "--hosts", "tools.example", "--origins", "https://cvat.example") as http:
        for headers, expected in (
            ({"Host": "evil.example:8070", "Origin": "http://evil.example:8070"}, "BAD_HOST"),
            ({"Origin": "https://evil.example"}, "BAD_ORIGIN"),
            ({"Host": "tools.example"}, ""),
            ({"Host": "host.docker.internal:8070"}, ""),
            ({"Origin": "https://cvat.example"}, ""),
        ):
            answer = http.get("/api/functions", headers=headers)
            assert (answer.status_code, answer.json().get("reason", "")) == (403 if expected else 200, expected)
            if expected:
                assert "MASKWIRE_" in answer.reason_phrase  # which is all that tools show
