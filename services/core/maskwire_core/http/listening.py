"""How servers of HTTP listen, where uvicorn leaves it to asyncio."""

import asyncio
from asyncio.sslproto import SSLProtocol
from typing import Any

from maskwire_core.http.connections import Bounded

_HANDSHAKE_S = 10
_TLS_BUFFER_BYTES = 32 << 10
_EVERY_INTERFACE = ("0.0.0.0", "::")


class ListeningLoop(asyncio.SelectorEventLoop):
    """asyncio's loop. TLS handshakes end within ten seconds, not sixty, and count as connections. "::" stands for IPv4
    as well, which asyncio leaves out, unless the port is any that is free."""

    async def create_server(self, *arguments: Any, **options: Any) -> asyncio.Server:
        if options.get("ssl") is not None:
            SSLProtocol.max_size = _TLS_BUFFER_BYTES  # taken by each connection, even if nothing comes; else 256 KiB
            options.setdefault("ssl_handshake_timeout", _HANDSHAKE_S)
        if options.get("host") == "::" and options.get("port"):
            options["host"] = _EVERY_INTERFACE
        return await super().create_server(*arguments, **options)

    def _make_ssl_transport(
        self, rawsock: Any, protocol: Any, sslcontext: Any, waiter: Any = None, **options: Any
    ) -> asyncio.Transport:
        transport: asyncio.Transport = super()._make_ssl_transport(rawsock, protocol, sslcontext, waiter, **options)  # type: ignore[misc]
        if options.get("server_side") and isinstance(protocol, Bounded):
            protocol.expect_handshake(transport, waiter)
        return transport


LOOP = f"{__name__}:{ListeningLoop.__name__}"
"""What uvicorn calls it."""
