"""What surrounds every call: its context, authorization, trace and metrics, and the translation of its errors."""

import asyncio
import contextlib
import inspect
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import cache
from typing import Any, TypeAlias

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.message import DecodeError

from maskwire_core import call_context
from maskwire_core.call_context import CallContext
from maskwire_core.errors import InvalidArgument
from maskwire_core.rpc.authorization import Authorizer, invalid_token
from maskwire_core.rpc.error_status import abort
from maskwire_core.rpc.message_fields import MOST_FIELDS, has_too_many_fields
from maskwire_core.telemetry import tracing
from maskwire_core.telemetry.metrics import HANDLED, HANDLING, STARTED

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
_HEALTH = "/grpc.health.v1.Health/"
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}
_FIRST_MESSAGE_S = 2


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Surrounds all calls but health checks: servicers' methods just raise `ServiceError`.

    Args:
        authorizer: Finds out who calls.
    """

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self) -> None:
        """Waits until no call is being answered; health checks are none."""
        await self._idle.wait()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        handler = await continuation(handler_call_details)
        path = str(handler_call_details.method)
        if handler is None or path.startswith(_HEALTH):
            return handler
        metadata = dict(handler_call_details.invocation_metadata or ())
        _, service, method = path.split("/")
        kinds = ("unary", "client_stream", "server_stream", "bidi_stream")
        labels = (kinds[bool(handler.request_streaming) + 2 * bool(handler.response_streaming)], service, method)

        async def observed(request: Any, context: Context) -> Any:
            call = call_context.begin(str(metadata.get("x-request-id", "")))
            STARTED.labels(*labels).inc()
            self._calls += 1
            self._idle.clear()
            started, cancelled = time.perf_counter(), False
            try:
                with tracing.serving(f"{service}/{method}", metadata):
                    return await self._answer(handler, method, metadata, call, request, context)
            except asyncio.CancelledError:
                cancelled = True
                raise
            finally:
                self._calls -= 1
                if not self._calls:
                    self._idle.set()
                took_s = time.perf_counter() - started
                number = _number(context.code())
                code = "CANCELLED" if cancelled and number == 0 else _CODES.get(number, "UNKNOWN")
                HANDLED.labels(*labels, code).inc()
                HANDLING.labels(*labels).observe(took_s)
                log.debug("%s %s after %.1f ms", method, code, took_s * 1e3)

        return _with_method(handler, observed, _request_kind(service, method))

    async def _answer(
        self,
        handler: Handler,
        method: str,
        metadata: Mapping[str, str | bytes],
        call: CallContext,
        request: Any,
        context: Context,
    ) -> Any:
        """Authorizes a call, runs its method, and translates its errors."""
        admitted = False
        try:
            with self._authorizer.authorized(call, method, metadata):
                call.caller.charge(requests=1, received_bytes=0 if handler.request_streaming else request.ByteSize())
                admitted = True
                checked = _each_readable(request) if handler.request_streaming else _readable(request)
                return await _run(handler, checked, context)
        except grpc.aio.AbortError:
            raise
        except asyncio.CancelledError:
            if not call.revoked or call.task is None:
                raise
            call.task.uncancel()
            await abort(context, invalid_token())
        except Exception as error:  # the boundary between this server and its callers
            if not admitted and handler.request_streaming:
                await _wait_for_first_message(request)
            await abort(context, error)


async def _run(handler: Handler, request: Any, context: Context) -> Any:
    """Runs a handler's method. Responses that it yields are written here, so that the call ends when this returns."""
    method: Any = next(filter(None, (getattr(handler, kind) for kind in _KINDS)))
    if not inspect.isasyncgenfunction(method):
        return await method(request, context)
    async with contextlib.aclosing(method(request, context)) as responses:
        async for response in responses:
            await context.write(response)
    return None


@cache
def _request_kind(service: str, method: str) -> Any:
    """The descriptor of a method's request; None where it is not known."""
    try:
        return descriptor_pool.Default().FindServiceByName(service).methods_by_name[method].input_type
    except KeyError:
        return None


def _with_method(handler: Any, method: Callable[[Any, Context], Awaitable[Any]], request: Any) -> Handler:
    """A copy of a handler with another method. Bytes that are not the expected message, or have too many fields, become
    `_Unreadable`.

    Args:
        handler: The handler.
        method: What it calls instead.
        request: The descriptor of its request; None where it is not known.
    """
    parse = handler.request_deserializer

    def parse_tolerantly(data: bytes) -> Any:
        if request is not None and has_too_many_fields(data, request):
            return _Unreadable(len(data), f"the message has more than {MOST_FIELDS} fields; send less at once")
        try:
            return parse(data)
        except DecodeError:
            return _Unreadable(len(data))

    (kind,) = (kind for kind in _KINDS if getattr(handler, kind) is not None)
    changed: Handler = handler._replace(**{kind: method, "request_deserializer": parse_tolerantly})
    return changed


class _Unreadable(InvalidArgument):
    """Stands for a message that cannot be parsed: gRPC itself would answer INTERNAL."""

    def __init__(self, size: int, why: str = "the bytes are not the message that this call takes") -> None:
        super().__init__("UNREADABLE_MESSAGE", why)
        self._size = size

    def ByteSize(self) -> int:
        """As messages have it."""
        return self._size


def _readable(message: Any) -> Any:
    """Returns a message. Raises `_Unreadable` if it could not be parsed."""
    if isinstance(message, _Unreadable):
        raise message
    return message


async def _each_readable(messages: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for message in messages:
        yield _readable(message)


async def _wait_for_first_message(messages: AsyncIterator[Any]) -> None:
    """Lets a client write before a stream is refused: gRPC's Python client does not report the status if its write
    fails."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_FIRST_MESSAGE_S):
            await anext(aiter(messages), None)


def _number(code: Any) -> int:
    return code.value[0] if isinstance(code, grpc.StatusCode) else int(code or 0)
