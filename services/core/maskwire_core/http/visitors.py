"""Which web pages may make requests: by the name that they call the server by, and by their origin.

Browsers send both, and pages can forge neither. A page of evil.example whose name was made to lead to this machine (DNS
rebinding) is of the same origin as the server, by that name, which the server does not have.
"""

import ipaddress
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from maskwire.addresses import is_loopback
from starlette.datastructures import Headers

from maskwire_core.http.problems import Problem

_OF_DOCKER = ("host.docker.internal", "gateway.docker.internal")  # this machine, for containers on it
_PORTS = {"http": 80, "https": 443}


class Visitors:
    """Judges names and origins.

    Args:
        hosts: Names that the server has besides its own: a name, "*.example.org" for all below it, or "*" for any.
        origins: Origins of pages that may make requests besides the server's own; "*" for all.
        bound: The address or name at which the server listens.
        what: What the server is called in errors: "gateway" or "adapter".
    """

    def __init__(self, hosts: Sequence[str], origins: Sequence[str], bound: str, what: str) -> None:
        named = [_name(host) for host in hosts]
        machine = socket.gethostname().lower()
        self._names = {_name(bound), machine, f"{machine}.local", *_OF_DOCKER, *named} - {""}
        self._below = tuple(name[1:] for name in named if name.startswith("*."))
        self._any_host = "*" in named
        self._origins = {origin.rstrip("/").lower() for origin in origins}
        self._what = what

    def refusal(self, headers: Headers, *, any_host: bool = False) -> Problem | None:
        """The answer to a request that a page may not make; None if it may.

        Args:
            headers: The request's.
            any_host: Whether the server may be called by any name, as probes of orchestrators do.
        """
        hosts = headers.getlist("host")
        for host in hosts:
            if not (any_host or self._is_own(host)):
                return Problem(
                    403,
                    f"this {self._what} has no name {host[:200]!r}; MASKWIRE_HOSTS lists its names (localhost and IP "
                    "addresses need none)",
                    "BAD_HOST",
                )
        for origin in headers.getlist("origin"):
            if not self._is_allowed(origin, hosts[0] if len(hosts) == 1 else ""):
                return Problem(
                    403,
                    f"pages of {origin[:200]} may not use this {self._what}; MASKWIRE_ORIGINS lists those that may",
                    "BAD_ORIGIN",
                )
        return None

    def _is_own(self, host: str) -> bool:
        name = _name(host)
        if self._any_host or name in self._names or is_loopback(name):
            return True
        try:
            ipaddress.ip_address(name)  # what leads to an address is no name that could be made to lead elsewhere
        except ValueError:
            return name.endswith(self._below) if self._below else False
        return True

    def _is_allowed(self, origin: str, host: str) -> bool:
        if "*" in self._origins or origin.lower() in self._origins:
            return True
        # Schemes may differ behind a proxy that terminates TLS; host and port must be this server's own.
        try:
            theirs, ours = urlsplit(origin), urlsplit(f"//{host}")
            ports = theirs.port or _PORTS.get(theirs.scheme), ours.port or _PORTS.get(theirs.scheme)
        except ValueError:
            return False
        return theirs.hostname is not None and theirs.hostname == ours.hostname and ports[0] == ports[1]


def _name(host: str) -> str:
    """A host's name or address, of "NAME", "NAME:PORT", "ADDRESS", "[ADDRESS]:PORT"."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    if host.count(":") == 1:
        host = host.partition(":")[0]
    return host.rstrip(".")
