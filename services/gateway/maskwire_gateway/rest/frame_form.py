"""The frames of a clip in a form of any length, whose parts are passed on as they come."""

from collections.abc import AsyncGenerator
from typing import Any

from maskwire.suggest import shortened
from maskwire.v1 import tracker_pb2 as pb
from maskwire_core.http.problems import Problem
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

_MAX_HEADER_BYTES = 4096  # of a part


class FrameForm:
    """Reads multipart/form-data whose parts, all named "frame", are the files of frames in their order.

    Args:
        content_type: The request's header.

    Raises:
        Problem: UNSUPPORTED_MEDIA_TYPE: it is something else.
    """

    def __init__(self, content_type: str) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise Problem(
                415,
                'send the frames as multipart/form-data, each as a part named "frame": curl -F frame=@0.jpg ...',
                "UNSUPPORTED_MEDIA_TYPE",
                "content-type",
            )
        self._come: list[pb.FramePart] = []
        self._header = self._value = b""
        self._header_bytes = 0
        self._name: str | None = None  # of the part
        self._is_complete = False
        callbacks: dict[str, Any] = {
            "on_part_begin": self._begin,
            "on_header_field": self._add_to_header,
            "on_header_value": self._add_to_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._check_name,
            "on_part_data": lambda data, start, end: self._come.append(pb.FramePart(chunk=data[start:end])),
            "on_part_end": lambda: self._come.append(pb.FramePart(last=True)),
            "on_end": self._complete,
        }
        self._parser = MultipartParser(options[b"boundary"], callbacks)  # type: ignore[arg-type]

    async def parts(self, body: AsyncGenerator[bytes, None]) -> AsyncGenerator[pb.FramePart, None]:
        """Yields the parts of the frames' files, those of a chunk of the body when it has come.

        Raises:
            Problem: BAD_FORM: the form is malformed. BAD_PARAMETER: a part has another name.
        """
        async for chunk in body:
            try:
                self._parser.write(chunk)
            except FormParserError as error:
                raise Problem(400, f"the form cannot be read: {error}", "BAD_FORM", "body") from error
            come, self._come = self._come, []
            for part in come:
                yield part
        if not self._is_complete:
            raise Problem(400, "the form has no end; send its closing boundary", "BAD_FORM", "body")

    def _begin(self) -> None:
        self._header_bytes, self._name = 0, None

    def _add_to_header(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._header += data[start:end]

    def _add_to_value(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._value += data[start:end]

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > _MAX_HEADER_BYTES:
            raise Problem(400, f"a part has more than {_MAX_HEADER_BYTES} bytes of headers", "BAD_FORM", "body")

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._header = self._value = b""

    def _check_name(self) -> None:
        if self._name != "frame":
            name = shortened(self._name or "")
            raise Problem(400, f"a part is named {name!r}; name all of them 'frame'", "BAD_PARAMETER", name)

    def _complete(self) -> None:
        self._is_complete = True
