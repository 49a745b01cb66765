"""Finds out who makes a call by its bearer token, and ends calls whose token is not valid any more."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping

from maskwire_core.call_context import CallContext
from maskwire_core.config import ServiceSettings
from maskwire_core.errors import PermissionDenied, Unauthenticated
from maskwire_core.runtime.periodic import repeating
from maskwire_core.tenancy.tenant import EVERYBODY, Caller
from maskwire_core.tenancy.tokens import Right, Token, TokenError, Tokens

_CHECK_PERIOD_S = 1


class Authorizer:
    """Authorizes calls.

    Args:
        tokens: The tokens that are valid; None to let everybody do everything.
        rights: By method name, the right that a token needs; None if it needs none. Methods that are not listed need
            a token, but no right.
    """

    def __init__(self, tokens: Tokens | None, rights: Mapping[str, Right | None]) -> None:
        self._tokens = tokens
        self._rights = rights
        self._callers: dict[str, Caller] = {}
        self._calls: set[CallContext] = set()

    @contextlib.contextmanager
    def authorized(self, call: CallContext, method: str, metadata: Mapping[str, str | bytes]) -> Iterator[None]:
        """Sets a call's caller. If `check` finds that its token is not valid any more, while the body runs, the call is
        revoked.

        Raises:
            Unauthenticated: TOKEN_INVALID: the call has no valid token.
            PermissionDenied: RIGHT_MISSING.
        """
        if self._tokens is None:
            call.caller = EVERYBODY
            yield
            return
        scheme, _, text = str(metadata.get("authorization", "")).partition(" ")
        token = self._tokens.find(text.strip()) if scheme.lower() == "bearer" else None
        if token is None:
            raise invalid_token()
        right = self._rights.get(method)
        if right is not None and right not in token.rights:
            raise PermissionDenied("RIGHT_MISSING", f"the token does not have the right to {right}")
        call.caller = self._caller(token)
        self._calls.add(call)
        try:
            yield
        finally:
            self._calls.discard(call)

    async def check(self) -> None:
        """Reads the tokens again if they have changed, and revokes calls that are not allowed any more."""
        if self._tokens is None:
            return
        await asyncio.to_thread(self._tokens.refresh)
        known = self._tokens.by_id
        self._callers = {name: caller for name, caller in self._callers.items() if known.get(name) == caller.token}
        for call in self._calls:
            token = known.get(call.caller.token.id)
            if token is None or token.expired or not call.caller.token.admits_as(token):
                call.revoke()

    def _caller(self, token: Token) -> Caller:
        """The caller who holds a token: the same for all calls, until the token's entry changes."""
        caller = self._callers.get(token.id)
        if caller is None or caller.token != token:
            caller = self._callers[token.id] = Caller(token)
        return caller


@contextlib.asynccontextmanager
async def authorizing(settings: ServiceSettings, rights: Mapping[str, Right | None]) -> AsyncIterator[Authorizer]:
    """Yields the authorizer for the tokens that the settings name, and checks them every second. If they name none,
    everybody may do everything. Exits if the tokens cannot be read.

    Args:
        settings: Settings of the server.
        rights: As for `Authorizer`.
    """
    try:
        authorizer = Authorizer(Tokens(settings.tokens) if settings.tokens is not None else None, rights)
    except TokenError as error:
        raise SystemExit(f"error: {error}; make the file with 'maskwire token new', or set --tokens") from error
    async with repeating(_CHECK_PERIOD_S, authorizer.check):
        yield authorizer


def invalid_token() -> Unauthenticated:
    return Unauthenticated(
        "TOKEN_INVALID", "no valid token; send 'authorization: Bearer TOKEN' (clients: token=, or MASKWIRE_TOKEN)"
    )
