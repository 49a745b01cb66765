"""The call that is being answered: who makes it, and what logs say about it.

The interceptor creates one `CallContext` for each call. It is kept in a context variable, Maskwire's only one: gRPC's
handlers are given a request and gRPC's own context, and log formatters neither. Tasks and threads that a call starts
(`asyncio.create_task`, `asyncio.to_thread`) inherit it. Traces have OpenTelemetry's own context.
"""

import asyncio
import re
import secrets
from contextvars import ContextVar
from dataclasses import dataclass

from maskwire_core.tenancy.tenant import EVERYBODY, Caller

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


@dataclass(eq=False)
class CallContext:
    """A call that is being answered.

    Attributes:
        request_id: Identifies the call in logs; empty outside of any call.
        caller: Who makes the call: namespaces, rights and limits. Everybody, if the server requires no tokens.
        namespace: Tenant whose image the call is about; empty until known.
        image_id: The image that the call is about; empty until known.
        task: The task that answers the call.
        revoked: Whether the call was cancelled because its token is not valid any more.
    """

    request_id: str = ""
    caller: Caller = EVERYBODY
    namespace: str = ""
    image_id: str = ""
    task: "asyncio.Task[object] | None" = None
    revoked: bool = False

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
    call = CallContext(request_id, task=asyncio.current_task())
    _current.set(call)
    return call


def current() -> CallContext:
    """The call that is being answered; outside of any call, a new context without a request ID."""
    return _current.get() or CallContext()
