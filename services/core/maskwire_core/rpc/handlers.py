"""What interceptors make of the handlers of calls."""

import contextlib
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc

from maskwire_core.rpc.server import Context

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behaviour = Callable[[Any, Context], Awaitable[Any]]


def behaviour(handler: Handler) -> Behaviour:
    """What a handler does, as a coroutine: what yields responses writes them, so that all of a call happens
    where its end can be told."""
    method: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    return _writing(method) if inspect.isasyncgenfunction(method) else method


def _writing(method: Callable[[Any, Context], AsyncGenerator[Any]]) -> Behaviour:
    async def write(request: Any, context: Context) -> None:
        async with contextlib.aclosing(method(request, context)) as responses:
            async for response in responses:
                await context.write(response)

    return write


def handler_like(like: Handler, behaviour: Behaviour) -> Handler:
    """A handler of the same kind."""
    kinds = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    make: Any = kinds[bool(like.request_streaming), bool(like.response_streaming)]
    made: Handler = make(behaviour, like.request_deserializer, like.response_serializer)
    return made
