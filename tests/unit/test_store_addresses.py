"""Addresses of stores."""

import pytest
from maskwire_core.errors import InvalidArgument
from maskwire_core.storage.store import Store


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
