"""What kind of network an address belongs to."""

import ipaddress
import urllib.request
from urllib.parse import urlsplit

# IANA's registries of special-purpose addresses, and those at which clouds configure their machines. The list is our
# own, since Python's changes with its version.
_PRIVATE_4 = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",  # carriers' own; Alibaba's metadata is in it
            "127.0.0.0/8",
            "168.63.129.16/32",  # Azure's WireServer
            "169.254.0.0/16",  # link-local, and most clouds' metadata
            "172.16.0.0/12",
            "192.0.0.0/24",  # Oracle's metadata is in it
            "192.0.2.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/3",  # multicast, reserved, broadcast
        ),
    )
)
# Of IPv6 only this is handed out to the Internet: not ::/8 (loopback, IPv4-mapped and translated), fc00::/7 (private;
# the metadata of AWS and Google), fe80::/10, fec0::/10, ff00::/8 and what is reserved.
_GLOBAL_6 = ipaddress.IPv6Network("2000::/3")
_PRIVATE_6 = tuple(
    map(
        ipaddress.IPv6Network,
        (
            "2001::/23",  # protocols' own, Teredo among them, which leads to IPv4 addresses elsewhere
            "2001:db8::/32",
            "2002::/16",  # 6to4 leads to an IPv4 address
            "3fff::/20",
        ),
    )
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_ISATAP = (0x00005EFE, 0x02005EFE)  # the bits before an IPv4 address in the lower half


def is_public(address: str) -> bool:
    """Whether an IP address is reachable from the whole Internet, also where IPv6 merely wraps an IPv4 address.

    Raises:
        ValueError: It is not an IP address.
    """
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv4Address):
        return not any(parsed in network for network in _PRIVATE_4)
    inner = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
    if parsed.ipv4_mapped is not None or parsed in _NAT64:
        return is_public(str(inner))
    if int(parsed) >> 32 & 0xFFFFFFFF in _ISATAP and not is_public(str(inner)):
        return False
    return parsed in _GLOBAL_6 and not any(parsed in network for network in _PRIVATE_6)


def is_loopback(host: str) -> bool:
    """Whether a host name or IP address is this machine's own: localhost or a name below it, 127.0.0.0/8 or ::1, in
    brackets or not. Nothing is resolved."""
    host = host.removeprefix("[").removesuffix("]")
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        name = host.lower().rstrip(".")
        return name == "localhost" or name.endswith(".localhost")
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def through_proxy(url: str) -> str:
    """Names the environment variable of the proxy through which a URL was asked for, for the end of an error message;
    empty without one. What the proxy is called stays out, since it may contain a password."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host) or urllib.request.proxy_bypass(host):
        return ""
    proxies = urllib.request.getproxies()
    scheme = next((name for name in (parts.scheme, "all") if name in proxies), None)
    return f", through the proxy that {scheme}_proxy names; no_proxy={host} goes around it" if scheme else ""
