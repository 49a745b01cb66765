"""Counts every call, gives it an id for the logs, and makes it a span."""

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from maskwire_core.rpc.handlers import Handler, behaviour, handler_like
from maskwire_core.rpc.server import Context
from maskwire_core.telemetry import logs, tracing
from maskwire_core.telemetry.metrics import HANDLED, HANDLING, STARTED

log = logging.getLogger(__name__)

_OURS = "/maskwire."
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


class Observer(grpc.aio.ServerInterceptor):
    """The outermost interceptor. Health checks and reflection are not observed."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        handler = await continuation(handler_call_details)
        name = str(handler_call_details.method)
        if handler is None or not name.startswith(_OURS):
            return handler
        metadata = dict(handler_call_details.invocation_metadata or ())
        _, service, method = name.split("/")
        ways = ("unary", "client_stream", "server_stream", "bidi_stream")
        labels = (ways[bool(handler.request_streaming) + 2 * bool(handler.response_streaming)], service, method)
        run = behaviour(handler)

        async def observed(request: Any, context: Context) -> Any:
            asked = str(metadata.get("x-request-id", ""))
            logs.begin(asked if _REQUEST_ID.fullmatch(asked) else secrets.token_hex(8))
            STARTED.labels(*labels).inc()
            started, cancelled = time.perf_counter(), False
            try:
                with tracing.serving(f"{service}/{method}", metadata):
                    return await run(request, context)
            except asyncio.CancelledError:
                cancelled = True
                raise
            finally:
                took_s = time.perf_counter() - started
                number = _number(context.code())
                code = "CANCELLED" if cancelled and number == 0 else _CODES.get(number, "UNKNOWN")
                HANDLED.labels(*labels, code).inc()
                HANDLING.labels(*labels).observe(took_s)
                log.debug("%s %s after %.1f ms", method, code, took_s * 1e3)

        return handler_like(handler, observed)


def _number(code: Any) -> int:
    return code.value[0] if isinstance(code, grpc.StatusCode) else int(code or 0)
