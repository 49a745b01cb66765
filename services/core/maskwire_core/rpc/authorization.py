"""Lets calls in by their bearer tokens, and ends those whose token ends."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import grpc

from maskwire_core.config import ServiceSettings
from maskwire_core.errors import PermissionDenied, ServiceError, Unauthenticated
from maskwire_core.rpc.handlers import Behaviour, Handler, behaviour, handler_like
from maskwire_core.rpc.server import Context, abort, repeating
from maskwire_core.tenancy import tenant
from maskwire_core.tenancy.tenant import Caller
from maskwire_core.tenancy.tokens import Right, TokenError, Tokens

log = logging.getLogger(__name__)

_OPEN_SERVICE = "/grpc.health.v1.Health/"
_CHECK_PERIOD_S = 1
_FIRST_MESSAGE_S = 2


class _Call:
    """A call that was let in."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.task = asyncio.current_task()
        self.ended = False

    def end(self) -> None:
        if not self.ended and self.task is not None:
            self.ended = True
            self.task.cancel()


class Guard(grpc.aio.ServerInterceptor):
    """Judges every call but those of the health service.

    Args:
        tokens: Who may come in.
        rights: By the method's name, the right that it needs; None: any token does. Other methods need any token, too.
    """

    def __init__(self, tokens: Tokens, rights: Mapping[str, Right | None]) -> None:
        self._tokens = tokens
        self._rights = rights
        self._callers: dict[str, Caller] = {}
        self._calls: set[_Call] = set()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None or method.startswith(_OPEN_SERVICE):
            return handler
        try:
            caller = self._admit(method.rpartition("/")[2], dict(handler_call_details.invocation_metadata or ()))
        except ServiceError as error:
            return handler_like(handler, _refusal(error, bool(handler.request_streaming)))
        return handler_like(handler, self._watched(handler, caller))

    async def check(self) -> None:
        """Looks for changes of the tokens, and ends the calls that are not allowed any more."""
        await asyncio.to_thread(self._tokens.refresh)
        known = self._tokens.by_id
        for name in [name for name, caller in self._callers.items() if known.get(name) != caller.token]:
            del self._callers[name]
        for call in self._calls:
            now = known.get(call.caller.token.id)
            if now is None or now.expired or not call.caller.token.admits_as(now):
                call.end()

    def _admit(self, method: str, metadata: Mapping[str, str | bytes]) -> Caller:
        kind, _, text = str(metadata.get("authorization", "")).partition(" ")
        token = self._tokens.find(text.strip()) if kind.lower() == "bearer" else None
        if token is None:
            raise _unauthenticated()
        right = self._rights.get(method)
        if right is not None and right not in token.rights:
            raise PermissionDenied("RIGHT_MISSING", f"the token has not the right to {right}")
        caller = self._callers.get(token.id)
        if caller is None or caller.token != token:
            caller = self._callers[token.id] = Caller(token)
        return caller

    def _watched(self, handler: Handler, caller: Caller) -> Behaviour:
        """What the handler does, charged to a caller, and ended when the caller's token ends."""
        method = behaviour(handler)

        async def watched(request: Any, context: Context) -> Any:
            call = _Call(caller)
            self._calls.add(call)
            tenant.enter(caller)
            try:
                caller.charge(requests=1, received_bytes=0 if handler.request_streaming else request.ByteSize())
                return await method(request, context)
            except ServiceError as error:  # of the charge; the handler tells its own
                await _refusal(error, bool(handler.request_streaming))(request, context)
            except asyncio.CancelledError:
                if not call.ended or call.task is None:
                    raise
                call.task.uncancel()
                await abort(context, _unauthenticated())
            finally:
                self._calls.discard(call)

        return watched


@contextlib.asynccontextmanager
async def guarding(
    settings: ServiceSettings, rights: Mapping[str, Right | None]
) -> AsyncIterator[Sequence[grpc.aio.ServerInterceptor]]:
    """The interceptors that the settings ask for, at work while the body runs. Tokens that cannot be read end the
    program.

    Args:
        settings: Where the tokens are; without any, everybody may do everything.
        rights: As of `Guard`.
    """
    if settings.tokens is None:
        yield ()
        return
    try:
        guard = Guard(Tokens(settings.tokens), rights)
    except TokenError as error:
        raise SystemExit(f"error: {error}; make the file with 'maskwire token new', or set --tokens") from error
    async with repeating(_CHECK_PERIOD_S, guard.check):
        yield (guard,)


def _unauthenticated() -> Unauthenticated:
    return Unauthenticated(
        "TOKEN_INVALID", "no valid token; send 'authorization: Bearer TOKEN' (clients: token=, or MASKWIRE_TOKEN)"
    )


def _refusal(error: ServiceError, streaming: bool) -> Behaviour:
    """Tells an error. The first message of many is read before: a client of gRPC for Python whose write fails never
    gets to know why."""

    async def refuse(request: Any, context: Context) -> None:
        if streaming:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FIRST_MESSAGE_S):
                    await anext(aiter(request), None)
        await abort(context, error)

    return refuse
