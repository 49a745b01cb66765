"""What surrounds every call: its context, authorization, trace and metrics, and the translation of its errors."""

import asyncio
import contextlib
import functools
import inspect
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from functools import cache
from typing import Any, TypeAlias, cast

import grpc
from google.protobuf import descriptor_pool

from maskwire_core import call_context
from maskwire_core.call_context import CallContext
from maskwire_core.errors import ResourceExhausted, ServiceError, Unauthenticated
from maskwire_core.rpc.authorization import Authorizer, invalid_token
from maskwire_core.rpc.error_status import abort
from maskwire_core.rpc.floods import Floods
from maskwire_core.rpc.newcomers import Newcomers
from maskwire_core.rpc.receiving import STRANGERS_BYTES, Receiver, Unreadable, tolerant_parser
from maskwire_core.rpc.turns import Turns
from maskwire_core.runtime.process_memory import forget_frames
from maskwire_core.telemetry import tracing
from maskwire_core.telemetry.metrics import HANDLED, HANDLING, STARTED

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
_HEALTH = "/grpc.health.v1.Health/"
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}
_FIRST_MESSAGE_S = 0.2


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Surrounds all calls but health checks: servicers' methods just raise `ServiceError`.

    Nothing of a call is received before its caller is known to be allowed to make it, and nothing of health checks,
    which anybody may make, beyond what is set aside for them.

    Args:
        authorizer: Finds out who calls.
        receiver: Receives what they send.
        newcomers: New connections to the port that is called.
    """

    def __init__(self, authorizer: Authorizer, receiver: Receiver, newcomers: Newcomers) -> None:
        self._authorizer = authorizer
        self._receiver = receiver
        self._floods = Floods(newcomers)
        self._turns = Turns()
        self._handlers: dict[str, Handler] = {}
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self) -> None:
        """Waits until no call is being answered, and keeps nobody waiting for a refusal. Health checks are no calls."""
        self._floods.end()
        await self._idle.wait()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        path = str(handler_call_details.method)
        if path not in self._handlers:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            self._handlers[path] = self._surround(handler, path)
        return self._handlers[path]

    def _surround(self, handler: Handler, path: str) -> Handler:
        """The handler of a method that is called at last, for all of its calls."""
        _, service, method = path.split("/")
        if path.startswith(_HEALTH):
            answer = functools.partial(self._answer_anybody, handler)
            return _with_method(handler, answer, _request_kind(service, method), STRANGERS_BYTES)
        kinds = ("unary", "client_stream", "server_stream", "bidi_stream")
        labels = (kinds[bool(handler.request_streaming) + 2 * bool(handler.response_streaming)], service, method)

        async def surrounded(messages: AsyncIterable[Any], context: Context) -> Any:
            source = cast(AsyncGenerator[Any, None], aiter(messages))
            metadata = dict(context.invocation_metadata() or ())
            call = call_context.begin(str(metadata.get("x-request-id", "")))
            STARTED.labels(*labels).inc()
            self._calls += 1
            self._idle.clear()
            started, cancelled = time.perf_counter(), False
            try:
                with tracing.serving(f"{service}/{method}", metadata):
                    return await self._answer(handler, method, metadata, call, source, context)
            except asyncio.CancelledError as error:
                cancelled = True
                forget_frames(error)
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
                await _close(source)
                if cancelled and self._authorizer.needs_tokens:  # else all are one tenant
                    call.memory.close()
                    await self._floods.reset(context.peer(), call.tenant)

        return _with_method(handler, surrounded, _request_kind(service, method))

    async def _answer(
        self,
        handler: Handler,
        method: str,
        metadata: Mapping[str, str | bytes],
        call: CallContext,
        messages: AsyncIterator[Any],
        context: Context,
    ) -> Any:
        """Authorizes a call, runs its method, and translates its errors."""
        admitted = False
        try:
            with contextlib.ExitStack() as held:
                held.enter_context(self._authorizer.authorized(call, method, metadata))
                self._floods.trust(context.peer(), call.caller.tenant)
                if self._authorizer.needs_tokens:  # else all are one tenant
                    await self._turns.begin(call.caller.tenant)
                call.caller.charge(requests=1)
                call.memory = self._receiver.budget.account(call.caller.tenant)
                # Called when the answer was read, or is not wanted any more. The stubs want a class of their own here.
                context.add_done_callback(lambda _: call.memory.close())  # type: ignore[arg-type]
                if handler.request_streaming:
                    held.enter_context(self._receiver.stream(call.caller.tenant))
                    admitted = True
                    call.arriving = held.enter_context(call.memory.another())
                    each = self._receiver.each(messages, call.arriving)
                    try:
                        return await _run(handler, each, context)
                    finally:
                        await _close(each)
                received = await self._receiver.one(messages, call.memory)
                call.caller.charge(received_bytes=received.nbytes)
                return await _run(handler, received.message, context)
        except grpc.aio.AbortError:
            raise
        except asyncio.CancelledError:
            if not call.revoked or call.task is None:
                raise
            call.task.uncancel()
            await abort(context, invalid_token())
        except Exception as error:  # the boundary between this server and its callers
            if isinstance(error, Unreadable):
                call.caller.owe(error.nbytes)
            if not admitted and handler.request_streaming:
                # gRPC's Python client does not report the status if its first write fails. Here it comes into the
                # window, unread.
                await asyncio.sleep(_FIRST_MESSAGE_S)
            if isinstance(error, ServiceError):
                forget_frames(error)
            if isinstance(error, Unauthenticated):
                await self._floods.refused(context.peer(), None, context)
            elif isinstance(error, ResourceExhausted) and self._authorizer.needs_tokens:  # else all are one tenant
                await self._floods.refused(context.peer(), call.caller.tenant, context)
            await abort(context, error)

    async def _answer_anybody(self, handler: Handler, messages: AsyncIterator[Any], context: Context) -> Any:
        """Answers a health check."""
        try:
            if self._authorizer.needs_tokens:
                await self._floods.refused(context.peer(), None, context)
            request = await self._receiver.from_stranger(messages, context.peer())
        except Exception as error:  # as above
            await abort(context, error)
        return await _run(handler, request, context)


async def _run(handler: Handler, request: Any, context: Context) -> Any:
    """Runs a handler's method. Responses that it yields are written here, so that the call ends when this returns."""
    method: Any = next(filter(None, (getattr(handler, kind) for kind in _KINDS)))
    if not inspect.isasyncgenfunction(method):
        return await method(request, context)
    async with contextlib.aclosing(method(request, context)) as responses:
        async for response in responses:
            await context.write(response)
    return None


async def _close(messages: AsyncGenerator[Any, None]) -> None:
    """Closes a call's messages, the last of which would otherwise stay until Python looks for garbage."""
    with contextlib.suppress(RuntimeError):  # a task that is being cancelled still reads, and closes them
        await messages.aclose()


@cache
def _request_kind(service: str, method: str) -> Any:
    """The descriptor of a method's request; None where it is not known."""
    try:
        return descriptor_pool.Default().FindServiceByName(service).methods_by_name[method].input_type
    except KeyError:
        return None


def _with_method(
    handler: Any,
    method: Callable[[AsyncIterator[Any], Context], Awaitable[Any]],
    request: Any,
    most_bytes: int | None = None,
) -> Handler:
    """A copy of a handler with another method, which is given all messages of the call, as if it were a stream: gRPC
    receives nothing of a stream by itself.

    Args:
        handler: The handler.
        method: What it calls instead.
        request: The descriptor of its request; None where it is not known.
        most_bytes: Largest message that is parsed, in bytes; None for whatever is received.
    """
    parse = tolerant_parser(handler.request_deserializer, request, most_bytes)
    kinds = dict.fromkeys(_KINDS) | {"stream_stream" if handler.response_streaming else "stream_unary": method}
    changed: Handler = handler._replace(request_streaming=True, request_deserializer=parse, **kinds)
    return changed


def _number(code: Any) -> int:
    return code.value[0] if isinstance(code, grpc.StatusCode) else int(code or 0)
