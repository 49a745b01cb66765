"""Finds out who makes a call by its bearer token, and ends calls whose token is not valid any more."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping

from maskwire_core.call_context import CallContext
from maskwire_core.config import ServiceSettings
from maskwire_core.errors import PermissionDenied, Unauthenticated
from maskwire_core.runtime.periodic import repeating
from maskwire_core.tenancy.tenant import EVERYBODY, Callers
from maskwire_core.tenancy.tokens import Right, TokenError

_CHECK_PERIOD_S = 0.25


class Authorizer:
    """Authorizes calls.

    Args:
        callers: The holders of tokens; None to let everybody do everything.
        rights: By method name, the right that a token needs; None if it needs none. Methods that are not listed need
            a token, but no right.
    """

    def __init__(self, callers: Callers | None, rights: Mapping[str, Right | None]) -> None:
        self._callers = callers
        self._rights = rights
        self._calls: set[CallContext] = set()

    @property
    def needs_tokens(self) -> bool:
        """Whether callers need a token."""
        return self._callers is not None

    @contextlib.contextmanager
    def authorized(self, call: CallContext, method: str, metadata: Mapping[str, str | bytes]) -> Iterator[None]:
        """Sets a call's caller. If `check` finds that its token is not valid any more, while the body runs, the call is
        revoked.

        Raises:
            Unauthenticated: TOKEN_INVALID: the call has no valid token.
            PermissionDenied: RIGHT_MISSING.
        """
        if self._callers is None:
            call.caller = EVERYBODY
            yield
            return
        scheme, _, text = str(metadata.get("authorization", "")).partition(" ")
        caller = self._callers.find(text.strip()) if scheme.lower() == "bearer" else None
        if caller is None:
            raise invalid_token()
        right = self._rights.get(method)
        if right is not None and right not in caller.token.rights:
            raise PermissionDenied("RIGHT_MISSING", f"the token does not have the right to {right}")
        call.caller = caller
        self._calls.add(call)
        try:
            yield
        finally:
            self._calls.discard(call)

    async def check(self) -> None:
        """Reads the tokens again if they have changed, and revokes calls that are not allowed any more."""
        if self._callers is None:
            return
        await asyncio.to_thread(self._callers.refresh)
        for call in self._calls:
            known = self._callers.by_id.get(call.caller.token.id)
            if known is None or known.token.expired or not call.caller.token.admits_as(known.token):
                call.revoke()


@contextlib.asynccontextmanager
async def authorizing(settings: ServiceSettings, rights: Mapping[str, Right | None]) -> AsyncIterator[Authorizer]:
    """Yields the authorizer for the tokens that the settings name, and checks them four times a second. If they name
    none, everybody may do everything. Exits if the tokens cannot be read.

    Args:
        settings: Settings of the server.
        rights: As for `Authorizer`.
    """
    try:
        authorizer = Authorizer(Callers(settings.tokens) if settings.tokens is not None else None, rights)
    except TokenError as error:
        raise SystemExit(f"error: {error}; make the file with 'maskwire token new', or set --tokens") from error
    async with repeating(_CHECK_PERIOD_S, authorizer.check):
        yield authorizer


def invalid_token() -> Unauthenticated:
    return Unauthenticated(
        "TOKEN_INVALID", "no valid token; send 'authorization: Bearer TOKEN' (clients: token=, or MASKWIRE_TOKEN)"
    )
