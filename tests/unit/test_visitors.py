"""Which web pages may use a server, by Host and Origin."""

import socket

import pytest
from maskwire_core.http.visitors import Visitors
from starlette.datastructures import Headers


def reason(visitors: Visitors, *pairs: tuple[str, str], any_host: bool = False) -> str:
    headers = Headers(raw=[(name.encode(), value.encode()) for name, value in pairs])
    problem = visitors.refusal(headers, any_host=any_host)
    return problem.reason if problem is not None else ""


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:9001",
        "LOCALHOST.:9001",
        "app.localhost:9001",
        "127.0.0.1:9001",
        "[::1]:9001",
        "10.1.2.3:9001",  # a pod's, to which a probe is sent, or this machine's in its network
        "[fd00::7]:9001",
        "masks.example",
        "masks.example:443",
        "a.labels.example:8443",
        "host.docker.internal:9001",
        socket.gethostname(),
        "bound.example:9001",
    ],
)
def test_names_of_the_server(host: str) -> None:
    visitors = Visitors(["masks.example:443", "*.labels.example"], [], "bound.example", "gateway")
    assert reason(visitors, ("host", host)) == ""
    assert reason(visitors, ("host", host), ("origin", f"http://{host}")) == ""


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:9001",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "labels.example",  # only names below it are listed
        "evillabels.example",
        "masks.example.evil.example",
        "",
        "a@localhost",
    ],
)
def test_names_that_it_does_not_have(host: str) -> None:
    visitors = Visitors(["masks.example", "*.labels.example"], ["*"], "127.0.0.1", "gateway")
    assert reason(visitors, ("host", host)) == "BAD_HOST"
    assert reason(visitors, ("host", "localhost"), ("host", host)) == "BAD_HOST"
    assert reason(visitors, ("host", host), any_host=True) == ""
    assert reason(Visitors(["*"], [], "127.0.0.1", "gateway"), ("host", host)) == ""
    problem = visitors.refusal(Headers({"host": host}))
    assert problem is not None
    assert "MASKWIRE_HOSTS" in problem.message


def test_origins() -> None:
    visitors = Visitors([], ["https://labels.example"], "127.0.0.1", "gateway")
    at_home = ("host", "localhost:9001")
    assert reason(visitors, at_home) == ""  # no page
    for origin in ("http://localhost:9001", "https://localhost:9001", "https://labels.example"):
        assert reason(visitors, at_home, ("origin", origin)) == "", origin
    for origin in ("http://localhost:3000", "https://labels.example.evil", "null", "", "http://[", "https://other"):
        assert reason(visitors, at_home, ("origin", origin)) == "BAD_ORIGIN", origin
    assert reason(visitors, at_home, ("origin", "http://localhost:9001"), ("origin", "http://evil")) == "BAD_ORIGIN"
    assert reason(Visitors([], ["*"], "127.0.0.1", "gateway"), at_home, ("origin", "http://evil")) == ""


def test_a_rebound_name_is_refused_before_its_origin_agrees_with_it() -> None:
    visitors = Visitors([], [], "127.0.0.1", "gateway")
    evil = (("host", "evil.example:9001"), ("origin", "http://evil.example:9001"))
    assert reason(visitors, *evil) == "BAD_HOST"
