"""What errors say about a proxy between us and a URL."""

import pytest
from maskwire import InvalidRequest
from maskwire.addresses import through_proxy
from maskwire.downloads import fetch


@pytest.fixture(autouse=True)
def _only_this_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("https_proxy", "http://user:secret@proxy.invalid:1")


def test_the_variable_is_named_and_no_password() -> None:
    assert through_proxy("https://a.example/b") == (
        ", through the proxy that https_proxy names; no_proxy=a.example goes around it"
    )


@pytest.mark.parametrize("url", ["http://a.example/b", "https://localhost/b", "https://127.0.0.1:1/b"])
def test_what_goes_around_the_proxy_names_none(url: str) -> None:
    assert through_proxy(url) == ""


def test_no_proxy_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "a.example")
    assert through_proxy("https://a.example/b") == ""


def test_an_image_that_no_proxy_brings(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("connection refused")

    monkeypatch.setattr("socket.create_connection", unreachable)
    with pytest.raises(InvalidRequest, match="connection refused, through the proxy that https_proxy names"):
        fetch("https://a.example/b.jpg")
