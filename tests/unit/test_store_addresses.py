"""Addresses of stores."""

from pathlib import Path

import pytest
from maskwire_core.errors import InvalidArgument
from maskwire_core.storage.connections import Connections, with_password
from maskwire_core.storage.store import Store, open_store


@pytest.mark.parametrize("url", ["localhost:6379", "http://localhost", "redis://localhost:port"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgument, match="not a store's address"):
        Store(url)


@pytest.mark.parametrize("kind", ["redis", "rediss", "redis+cluster", "redis+sentinel"])
def test_a_password_that_makes_no_address_is_not_told(kind: str) -> None:
    for password in ("se/cret", "se?cret", "se#cret", "[secret"):
        with pytest.raises(InvalidArgument) as caught:
            Store(f"{kind}://user:{password}@localhost:6379/mymaster")
        assert "cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("redis://me@store:6379/0", "store:6379"),
        ("rediss://me@store:6379/0?ssl_ca_certs=ca.pem", "store:6379"),
        ("redis+sentinel://me@one:1,two:2/primary/0", "primary by one:1,two:2"),
        ("redis+cluster://me@one:1,two:2", "one:1,two:2"),
        ("unix:///run/store.sock?db=0", "/run/store.sock"),
    ],
)
def test_a_password_can_be_in_a_file(tmp_path: Path, url: str, where: str) -> None:
    file = tmp_path / "password"
    file.write_text("p@ss/w?rd#1\n")
    whole = with_password(url, file)
    assert "p%40ss%2Fw%3Frd%231@" in whole
    connections = Connections(whole, 1)
    assert connections.address == where
    if not url.startswith("redis+cluster"):
        options = connections._connected().connection_pool.connection_kwargs
        assert options["password"] == "p@ss/w?rd#1"
        assert options.get("username") == ("me" if "me@" in url else None)


def test_a_file_that_has_no_password_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="missing: No such file or directory; set --redis-password-file"):
        open_store("redis://store", 1, tmp_path / "missing")
    (tmp_path / "password").write_text("one")
    with pytest.raises(SystemExit, match="leave one out") as caught:
        open_store("redis://me:two@store", 1, tmp_path / "password")
    assert "two" not in str(caught.value)
