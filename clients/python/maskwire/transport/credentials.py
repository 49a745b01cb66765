"""What a client shows the servers, and by what it knows them: a bearer token, TLS."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import grpc

from maskwire.errors import InvalidRequest

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Tls:
    """How connections are encrypted.

    Attributes:
        ca: PEM file of the certificates that servers' own must be signed with; None: those of the system.
        cert: PEM file of this client's certificate chain, for servers that ask for one (mTLS).
        key: PEM file of its private key.
    """

    ca: str | Path | None = None
    cert: str | Path | None = None
    key: str | Path | None = None


class Credentials:
    """A token and TLS, as given or as the environment has them.

    Args:
        token: Bearer token; None takes MASKWIRE_TOKEN, and "" none at all.
        tls: How to encrypt; True: with the system's certificates; None: as MASKWIRE_TLS_CA, MASKWIRE_TLS_CLIENT_CERT
            and MASKWIRE_TLS_CLIENT_KEY say, or with MASKWIRE_TLS=1 as True; without any of them, not at all.

    Raises:
        InvalidRequest: A file cannot be read, or the token cannot be sent.
    """

    def __init__(self, token: str | None = None, tls: Tls | bool | None = None) -> None:
        self.metadata = authorization(os.environ.get("MASKWIRE_TOKEN") if token is None else token)
        chosen = _from_environment() if tls is None else Tls() if tls is True else tls
        self._channel = _channel_credentials(chosen) if chosen else None

    def connect(self, address: str, options: list[tuple[str, Any]]) -> grpc.aio.Channel:
        """A channel to a server; the token is for `authorized`."""
        if self._channel is None:
            return grpc.aio.insecure_channel(address, options=options)
        return grpc.aio.secure_channel(address, self._channel, options=options)

    def connect_blocking(self, address: str) -> grpc.Channel:
        """The same without asyncio."""
        if self._channel is None:
            return grpc.insecure_channel(address)
        return grpc.secure_channel(address, self._channel)


def authorization(token: str | None) -> Metadata:
    """What is sent with each call.

    Raises:
        InvalidRequest: The token has characters that cannot be sent.
    """
    if not token:
        return ()
    if not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidRequest("the token has blanks or other characters that no token has", "BAD_TOKEN", "token")
    return (("authorization", f"Bearer {token}"),)


def authorized(channel: grpc.aio.Channel, metadata: Metadata) -> grpc.aio.Channel:
    """A channel whose calls send the metadata. It shares the connection, and is not to be closed."""
    return cast(grpc.aio.Channel, _Authorized(channel, metadata)) if metadata else channel


class _Authorized:
    """What stubs use of a channel. gRPC's own ways need TLS (call credentials) or wrap each call (interceptors)."""

    def __init__(self, channel: grpc.aio.Channel, metadata: Metadata) -> None:
        self._metadata = metadata
        self.unary_unary = self._sending(channel.unary_unary)
        self.unary_stream = self._sending(channel.unary_stream)
        self.stream_unary = self._sending(channel.stream_unary)
        self.stream_stream = self._sending(channel.stream_stream)

    def _sending(self, kind: Callable[..., Any]) -> Callable[..., Callable[..., Any]]:
        def method(*arguments: Any, **options: Any) -> Callable[..., Any]:
            call = kind(*arguments, **options)

            def send(*requests: Any, metadata: Any = None, **rest: Any) -> Any:
                return call(*requests, metadata=(*(metadata or ()), *self._metadata), **rest)

            return send

        return method


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
