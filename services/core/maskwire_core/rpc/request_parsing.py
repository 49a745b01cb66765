"""Requests that are no messages of their call: told as such, where grpc itself would tell of an internal error."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError

from maskwire_core.errors import InvalidArgument

Request = TypeVar("Request")


class _Unreadable:
    """Stands for bytes that could not be parsed."""

    def __init__(self, size: int) -> None:
        self._size = size

    def ByteSize(self) -> int:
        """As messages have it."""
        return self._size


class Parsing(grpc.aio.ServerInterceptor):
    """Hands bytes that cannot be parsed to this package's methods, which check them by `readable` or `each`."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or not str(handler_call_details.method).startswith("/maskwire."):
            return handler
        parse = handler.request_deserializer

        def tolerant(data: bytes) -> Any:
            try:
                return parse(data)
            except DecodeError:
                return _Unreadable(len(data))

        return handler._replace(request_deserializer=tolerant)


def readable(request: Request) -> Request:
    """The request, if it is one.

    Raises:
        InvalidArgument: UNREADABLE_MESSAGE.
    """
    if isinstance(request, _Unreadable):
        raise InvalidArgument("UNREADABLE_MESSAGE", "the bytes are not the message that this call takes")
    return request


async def each(requests: AsyncIterator[Request]) -> AsyncIterator[Request]:
    """Requests of a stream, checked likewise."""
    async for request in requests:
        yield readable(request)
