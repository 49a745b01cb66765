"""How connections to the servers are encrypted."""

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from maskwire.addresses import is_loopback
from maskwire.errors import InvalidRequest


@dataclass(frozen=True)
class Tls:
    """Certificates of an encrypted connection.

    Attributes:
        ca: PEM file of the certificates that sign the servers' own; None: those of the system.
        cert: PEM file of this client's certificate chain, for servers that ask for one (mTLS).
        key: PEM file of its private key.
    """

    ca: str | Path | None = None
    cert: str | Path | None = None
    key: str | Path | None = None


class Credentials:
    """TLS as given, or as the environment has it. Files are read once.

    Args:
        tls: Certificates; True: those of the system; False: no encryption. None: as MASKWIRE_TLS_CA,
            MASKWIRE_TLS_CLIENT_CERT and MASKWIRE_TLS_CLIENT_KEY say, or with MASKWIRE_TLS=1 as True; without any of
            them, no encryption.

    Raises:
        InvalidRequest: BAD_TLS: a file cannot be read, or a certificate has no key.
    """

    def __init__(self, tls: Tls | bool | None = None) -> None:
        chosen = _from_environment() if tls is None else Tls() if tls is True else tls
        self._channel = _channel_credentials(chosen) if chosen else None

    def connect(self, address: str, options: list[tuple[str, Any]]) -> grpc.aio.Channel:
        """Makes an asyncio channel to the server at "host:port"."""
        options = [*options, *_proxy(address)]
        if self._channel is None:
            return grpc.aio.insecure_channel(address, options=options)
        return grpc.aio.secure_channel(address, self._channel, options=options)

    def connect_blocking(self, address: str) -> grpc.Channel:
        """Makes a channel to the server at "host:port" that is used without asyncio."""
        options = _proxy(address)
        if self._channel is None:
            return grpc.insecure_channel(address, options=options)
        return grpc.secure_channel(address, self._channel, options=options)


def _proxy(address: str) -> list[tuple[str, Any]]:
    """Options that keep connections within this machine from proxies. gRPC would send them to the one that grpc_proxy,
    https_proxy or http_proxy names, unless no_grpc_proxy or no_proxy lists the host, which few people think of."""
    return [("grpc.enable_http_proxy", 0)] if is_local(address) else []


def is_local(address: str) -> bool:
    """Whether a server's address, "host:port" or with one of gRPC's schemes, is on this machine. Nothing is
    resolved."""
    scheme, _, rest = address.partition(":")
    if scheme in ("unix", "unix-abstract", "dns", "ipv4", "ipv6") and not rest.isdecimal():
        if scheme.startswith("unix"):
            return True
        address = rest.rpartition("/")[2]
    host = address if address.count(":") > 1 and "]" not in address else address.rpartition(":")[0] or address
    try:
        if ipaddress.ip_address(host.strip("[]")).is_unspecified:
            return True  # connecting to it leads to this machine
    except ValueError:
        pass
    return is_loopback(host)


def _from_environment() -> Tls | None:
    names = ("MASKWIRE_TLS_CA", "MASKWIRE_TLS_CLIENT_CERT", "MASKWIRE_TLS_CLIENT_KEY")
    ca, cert, key = (os.environ.get(name) or None for name in names)
    wanted = os.environ.get("MASKWIRE_TLS", "").lower() in ("1", "true", "yes", "on")
    return Tls(ca, cert, key) if wanted or ca or cert or key else None


def _channel_credentials(tls: Tls) -> grpc.ChannelCredentials:
    if (tls.cert is None) != (tls.key is None):
        raise InvalidRequest("a client's certificate needs its key, and the key its certificate", "BAD_TLS", "tls")
    try:
        ca, cert, key = (None if path is None else Path(path).read_bytes() for path in (tls.ca, tls.cert, tls.key))
    except OSError as error:
        raise InvalidRequest(f"cannot read {error.filename}: {error.strerror}", "BAD_TLS", "tls") from error
    return grpc.ssl_channel_credentials(ca, key, cert)
