"""The call that is being answered: who makes it, and what logs say about it.

The interceptor creates one `CallContext` for each call. It is kept in a context variable, Maskwire's only one: gRPC's
handlers are given a request and gRPC's own context, and log formatters neither. Tasks and threads that a call starts
(`asyncio.create_task`, `asyncio.to_thread`) inherit it. Traces have OpenTelemetry's own context.
"""

import asyncio
import re
import secrets
from contextvars import ContextVar
from dataclasses import dataclass, field

from maskwire_core.names import MAX_REQUEST_ID
from maskwire_core.scheduling.byte_budget import Account, ByteBudget
from maskwire_core.tenancy.tenant import Caller

_UNLIMITED = ByteBudget(1 << 62)
_REQUEST_ID = re.compile(rf"[\x21-\x7e]{{1,{MAX_REQUEST_ID}}}")


@dataclass(eq=False)
class CallContext:
    """A call that is being answered."""

    request_id: str  # identifies the call in logs
    task: "asyncio.Task[object] | None" = None  # the task that answers the call
    namespace: str = ""  # tenant whose image the call is about; empty until known
    image_id: str = ""  # the image that the call is about; empty until known
    revoked: bool = False  # whether the call was cancelled because its token is not valid any more
    # Memory for what the call has sent and what waits for it; without a limit outside of servers.
    memory: Account = field(default_factory=lambda: _UNLIMITED.account(""))
    # Memory of a stream's latest message.
    arriving: Account = field(default_factory=lambda: _UNLIMITED.account(""))
    _caller: Caller | None = None

    @property
    def caller(self) -> Caller:
        """Who makes the call: namespaces, rights and limits. Raises `RuntimeError` before the call was authorized."""
        if self._caller is None:
            raise RuntimeError("the call is not authorized; its caller has no rights yet")
        return self._caller

    @caller.setter
    def caller(self, caller: Caller) -> None:
        self._caller = caller

    @property
    def tenant(self) -> str | None:
        """On whose account the call is; None before it was authorized."""
        return None if self._caller is None else self._caller.tenant

    def revoke(self) -> None:
        """Cancels the call because its token is not valid any more."""
        if not self.revoked and self.task is not None:
            self.revoked = True
            self.task.cancel()


_current: ContextVar[CallContext | None] = ContextVar("call", default=None)


def begin(request_id: str) -> CallContext:
    """Begins a call, which is the current one for the rest of this task and for what it starts.

    Args:
        request_id: ID that the caller chose; if it is empty or not valid, one is made.
    """
    if not _REQUEST_ID.fullmatch(request_id):
        request_id = secrets.token_hex(8)
    call = CallContext(request_id, asyncio.current_task())
    _current.set(call)
    return call


def current() -> CallContext:
    """The call that is being answered. Raises `RuntimeError` outside of any call: a server's own work has no caller."""
    call = _current.get()
    if call is None:
        raise RuntimeError("no call is being answered here; work outside of calls must say on whose behalf it is done")
    return call


def current_if_any() -> CallContext | None:
    """The call that is being answered; None outside of any call."""
    return _current.get()
