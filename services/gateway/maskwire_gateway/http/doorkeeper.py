"""Whose request it is, by its headers alone: its token where the servers need one, and else its address."""

import asyncio
import hashlib
import time
from urllib.parse import parse_qs

from maskwire import ImageNotFound, InvalidRequest, MaskwireError, NotAllowed, NotAuthenticated
from maskwire_core.http.problems import busy
from maskwire_core.networks import network_of
from maskwire_core.scheduling.shares import Shares
from starlette.requests import HTTPConnection
from starlette.types import Scope

from maskwire_gateway.upstream import Upstream

ROBOFLOW = ("/sam2/", "/sam3/", "/model/")
"""Beginnings of the paths that clients of Roboflow ask. inference-sdk sends the token in the body, if at all."""

BEARER = "maskwire.bearer."
"""Prefix of the subprotocol that holds a browser's token: browsers cannot set headers of a WebSocket."""

_KNOWN_S = 30.0  # the servers judge each call again
_REFUSED_S = 1.0
_UNKNOWN_S = 3.0  # no encoder could say
_MAX_KNOWN = 10_000
_MAX_JUDGED = 64
_NEEDS_TOKEN = ("/v1/", *ROBOFLOW)
NOBODY = "nobody"
"""On whose account requests go whose token is in the body, since all of them must be read. It gets a small share."""


class Doorkeeper:
    """Finds out on whose account a request goes, and refuses those whose token the servers refuse.

    Only encoders and decoders know tokens. An encoder is asked about each for the first time, and again after half a
    minute; what it says of no token at all tells whether tokens are needed.

    Args:
        upstream: The servers.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._known: dict[str, tuple[float, MaskwireError | None, bool]] = {}  # until, error, whether it is accepted
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._judged = Shares(_MAX_JUDGED)

    async def holder(self, scope: Scope) -> str:
        """On whose account a request goes: a token's, or an address's.

        Raises:
            MaskwireError: NotAuthenticated, as the encoder says.
            Problem: TOO_MANY_REQUESTS: too many tokens of this address are being judged.
        """
        address = network_of(scope.get("client"))
        if not scope["path"].startswith(_NEEDS_TOKEN):
            return f"address {address}"
        nobody, accepted = await self._judge("", address)
        if nobody is None:
            return f"address {address}"  # tokens are not needed, or no encoder answers
        token = token_of(HTTPConnection(scope))
        caller = self._upstream.caller(token)
        if not caller.token:
            if scope["path"].startswith(ROBOFLOW):
                return NOBODY
            raise nobody
        refused, accepted = await self._judge(caller.token, address)
        if refused is not None:
            raise refused
        return f"token {hashlib.sha256(caller.token.encode()).hexdigest()}" if accepted else f"address {address}"

    async def _judge(self, token: str, address: str) -> tuple[MaskwireError | None, bool]:
        """The error with which a token is refused, and whether it is accepted; neither if nobody could say."""
        until, error, accepted = self._known.get(token, (0, None, False))
        now = time.monotonic()
        if until > now:
            return error, accepted
        asking = self._asking.get(token)
        if asking is None:
            if not self._judged.take(address, 1):
                raise busy("too many tokens at once; try again", "TOO_MANY_REQUESTS")
            asking = self._asking[token] = asyncio.create_task(self._ask(token))

            def asked(_: object) -> None:
                del self._asking[token]
                self._judged.add(address, -1)

            asking.add_done_callback(asked)
        if not accepted:
            await asyncio.shield(asking)  # else it goes on by what was said before
            _, error, accepted = self._known.get(token, (0, None, False))
        return error, accepted

    async def _ask(self, token: str) -> None:
        _, _, accepted = self._known.get(token, (0, None, False))
        error: MaskwireError | None = None
        valid_s = _KNOWN_S
        try:
            await self._upstream.judge(token)
            accepted = True
        except NotAuthenticated as refused:
            error, accepted = refused, False
            valid_s = _REFUSED_S if token else _KNOWN_S
        except MaskwireError as other:
            if isinstance(other, NotAllowed | InvalidRequest | ImageNotFound) or other.reason == "RATE_LIMITED":
                accepted = True  # it may do something else, or at another time
            else:
                valid_s = _UNKNOWN_S
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known[token] = time.monotonic() + valid_s, error, accepted


def bearer(connection: HTTPConnection) -> str:
    """The caller's token, from the Authorization header or the subprotocols that a WebSocket offers; empty if none."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    offered = connection.scope.get("subprotocols", ())
    return next((name.removeprefix(BEARER) for name in offered if name.startswith(BEARER)), "")


def token_of(connection: HTTPConnection) -> str:
    """As `bearer`, and for clients of Roboflow also from the query, which takes precedence."""
    if str(connection.scope["path"]).startswith(ROBOFLOW):
        query = parse_qs(connection.scope["query_string"].decode("latin-1"))
        if key := query.get("api_key", [""])[0]:
            return str(key)
    return bearer(connection)
