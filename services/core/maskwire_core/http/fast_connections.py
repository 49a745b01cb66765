"""uvicorn's faster HTTP/1.1 within limits; the adapters, which do without httptools, do not load it."""

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from maskwire_core.http.connections import Bounded, Connections

_HEADER_BYTES = 64 << 10  # of all headers of a request
_HEADERS = 128
_FRAMING = 16  # bytes that may frame a body for each byte of it, beside `_HEADER_BYTES`


class BoundedHttpTools(Bounded, HttpToolsProtocol):
    """uvicorn's faster HTTP/1.1, whose parser has no limits of its own."""

    def __init__(self, connections: Connections, *arguments: Any, **options: Any) -> None:
        super().__init__(connections, *arguments, **options)
        self._header_bytes = self._header_count = 0
        self._framing_bytes = self._body_bytes = self._body_bytes_of_call = 0
        self._began = False

    def data_received(self, data: bytes) -> None:
        self._began, self._body_bytes_of_call = False, 0
        super().data_received(data)
        if not self._began:  # else some of it was of the request before
            self._framing_bytes += len(data) - self._body_bytes_of_call
            if self._framing_bytes > _HEADER_BYTES + _FRAMING * self._body_bytes:
                self.refuse("431 Request Header Fields Too Large")

    def on_message_begin(self) -> None:
        self._header_bytes = self._header_count = self._framing_bytes = self._body_bytes = 0
        self._began = True
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_count += 1
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        self._body_bytes_of_call += len(body)
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        if self._is_too_large:
            self.refuse("431 Request Header Fields Too Large")
        elif not self.transport.is_closing():
            super().send_400_response(msg)

    @property
    def _is_too_large(self) -> bool:
        return self._header_bytes > _HEADER_BYTES or self._header_count > _HEADERS

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._is_too_large:
            raise ValueError("the headers are too large")  # ends the parsing; uvicorn then calls send_400_response
