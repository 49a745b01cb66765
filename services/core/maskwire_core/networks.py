"""Whom an address belongs to, for limits that addresses share."""

import contextlib
import ipaddress
from urllib.parse import unquote


def network_of(client: tuple[str, int] | None) -> str:
    """Whom an address belongs to: one that has an IPv6 network has 2^64 addresses."""
    if client is None:
        return "local"
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(client[0].partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address):
            if address.ipv4_mapped is not None:
                return str(address.ipv4_mapped)
            return str(ipaddress.IPv6Network((address, 64), strict=False))
    return client[0]


def network_of_peer(peer: str) -> str:
    """As `network_of`, of a caller as gRPC says it: "ipv4:10.1.2.3:50051", "ipv6:%5B2a00::9%5D:50051", "unix:"."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return network_of(None)
    host, _, port = unquote(rest).rpartition(":")
    return network_of((host.strip("[]"), int(port) if port.isdecimal() else 0))
