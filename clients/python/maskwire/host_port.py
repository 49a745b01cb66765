"""How addresses of servers are written: "host:port", or "[::1]:port" with an IPv6 address."""

import ipaddress
import re

from maskwire.errors import InvalidRequest

# What gRPC knows by their schemes; their colons are no business of ours.
_SCHEME = re.compile(r"(dns|ipv4|ipv6|unix|unix-abstract|vsock|xds|google-c2p):")
# gRPC would take any other scheme for a part of a host name, and what fails then looks like a broken server.
_FOREIGN_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/]*)")
_IN_BRACKETS = re.compile(r"\[([^\[\]]+)\]:\d+")
_HOST_AND_PORT = re.compile(r"[^:]+:\d+")


def join(host: str, port: int) -> str:
    """Writes a host and a port as one address, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if is_ipv6(host) else f"{host}:{port}"


def reachable(host: str) -> str:
    """The host at which this machine reaches a server that listens on `host`, which may stand for all interfaces."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def is_ipv6(host: str) -> bool:
    """Whether a host is an IPv6 address, which may name its zone, as in fe80::1%eth0."""
    try:
        return isinstance(ipaddress.ip_address(host), ipaddress.IPv6Address)
    except ValueError:
        return False


def bare_host(text: str) -> str:
    """Returns a host to listen on without the brackets that an IPv6 address may have.

    Raises:
        ValueError: There is a port, or what is in the brackets is no IPv6 address.
    """
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if is_ipv6(inner) or (inner == text and ":" not in text):
        return inner
    raise ValueError(f"{text!r} is not a host such as 127.0.0.1, ::1 or a name; the port is given by itself")


def check_address(address: str, field: str) -> str:
    """Returns an address to connect to: "host:port", "[::1]:port", or one with a scheme that gRPC knows.

    Args:
        address: The address.
        field: What it was given as, for the error.

    Raises:
        InvalidRequest: BAD_ADDRESS: it has no host or no port, an IPv6 address is not in brackets, or it is a URL.
    """
    if _SCHEME.match(address):
        return address
    if foreign := _FOREIGN_SCHEME.match(address):
        tls = "; TLS is chosen by MASKWIRE_TLS=1, tls=True or --tls" if foreign[1].lower() == "https" else ""
        raise InvalidRequest(
            f"{address!r} is a URL, and gRPC takes host:port: write {foreign[2] or 'localhost:50051'!r}{tls}",
            "BAD_ADDRESS",
            field,
        )
    if address.count(":") > 1:
        found = _IN_BRACKETS.fullmatch(address)
        if found is None or not is_ipv6(found[1]):
            raise InvalidRequest(
                f"{address!r} is not an address; an IPv6 address is written in brackets, as in [::1]:50051",
                "BAD_ADDRESS",
                field,
            )
    elif not _HOST_AND_PORT.fullmatch(address):
        # gRPC would take port 443.
        raise InvalidRequest(f"{address!r} is not an address; write host:port", "BAD_ADDRESS", field)
    return address
