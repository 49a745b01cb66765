"""How servers of HTTP listen, where uvicorn leaves it to asyncio."""

import asyncio
from typing import Any

_HANDSHAKE_S = 10
_EVERY_INTERFACE = ("0.0.0.0", "::")


class ListeningLoop(asyncio.SelectorEventLoop):
    """asyncio's loop. TLS handshakes end within ten seconds, not sixty, and "::" stands for IPv4 as well, which asyncio
    leaves out, unless the port is any that is free."""

    async def create_server(self, *arguments: Any, **options: Any) -> asyncio.Server:
        if options.get("ssl") is not None:
            options.setdefault("ssl_handshake_timeout", _HANDSHAKE_S)
        if options.get("host") == "::" and options.get("port"):
            options["host"] = _EVERY_INTERFACE
        return await super().create_server(*arguments, **options)


LOOP = f"{__name__}:{ListeningLoop.__name__}"
"""What uvicorn calls it."""
