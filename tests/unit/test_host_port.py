"""How addresses of servers are written."""

import pytest
from maskwire import InvalidRequest
from maskwire.host_port import bare_host, check_address, join, reachable
from maskwire.transport.channels import Channels
from maskwire.transport.credentials import Credentials
from maskwire_core.config import DecoderSettings, GatewaySettings
from pydantic import ValidationError


@pytest.mark.parametrize(
    "address",
    [
        "localhost:50051",
        "10.0.0.1:1",
        "[::1]:50051",
        "[2001:db8::1]:50051",
        "[fe80::1%eth0]:1",
        "dns:///a:1",
        "unix:/a:b:c",
    ],
)
def test_addresses_to_connect_to(address: str) -> None:
    assert check_address(address, "encoder") == address


@pytest.mark.parametrize(
    "address", ["::1", "::1:50051", "2001:db8::1:50051", "[::1", "[::1]", "[::1]:x", "[a:b]:1", "a:b:1"]
)
def test_an_address_of_ipv6_needs_brackets(address: str) -> None:
    with pytest.raises(InvalidRequest, match=r"as in \[::1\]:50051") as caught:
        Channels("encoder", f"localhost:1, {address}", Credentials(False))
    assert (caught.value.reason, caught.value.field) == ("BAD_ADDRESS", "encoder")


@pytest.mark.parametrize("address", ["localhost", "a:", ":50051", "a:b"])
def test_an_address_has_a_host_and_a_port(address: str) -> None:
    with pytest.raises(InvalidRequest, match="write host:port") as caught:
        Channels("encoder", f"localhost:1, {address}", Credentials(False))
    assert (caught.value.reason, caught.value.field) == ("BAD_ADDRESS", "encoder")


@pytest.mark.parametrize("address", ["http://a:50051", "https://a:50051/", "redis://a:50051/0"])
def test_a_url_is_no_address(address: str) -> None:
    with pytest.raises(InvalidRequest, match="write 'a:50051'") as caught:
        Channels("encoder", f"localhost:1, {address}", Credentials(False))
    assert (caught.value.reason, caught.value.field) == ("BAD_ADDRESS", "encoder")
    assert ("MASKWIRE_TLS=1" in caught.value.message) == address.startswith("https")


def test_host_and_port_together() -> None:
    assert [join(host, 1) for host in ("a", "127.0.0.1", "::1", "fe80::1%eth0")] == [
        "a:1",
        "127.0.0.1:1",
        "[::1]:1",
        "[fe80::1%eth0]:1",
    ]
    assert [reachable(host) for host in ("0.0.0.0", "::", "::1", "a")] == ["127.0.0.1", "::1", "::1", "a"]


@pytest.mark.parametrize(
    ("text", "host"), [("::1", "::1"), ("[::1]", "::1"), ("::", "::"), ("[::]", "::"), ("a.b", "a.b")]
)
def test_hosts_to_listen_on(text: str, host: str) -> None:
    assert bare_host(text) == host
    for kind in (DecoderSettings, GatewaySettings):
        assert kind(host=text).host == host  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["[::1]:50051", "127.0.0.1:50051", "[a]", "::1:50051:x"])
def test_a_host_to_listen_on_has_no_port(text: str) -> None:
    with pytest.raises(ValidationError, match="the port is given by itself"):
        DecoderSettings(host=text)
