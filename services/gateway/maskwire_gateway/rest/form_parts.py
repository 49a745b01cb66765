"""multipart/form-data read as it comes, of any length."""

from dataclasses import dataclass
from typing import Any

from maskwire_core.http.problems import Problem
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

_MAX_HEADER_BYTES = 4096  # of a part


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of a part of a form.

    Attributes:
        name: The part's name.
        is_file: Whether the part has the name of a file.
        data: What has come of its content.
        is_last: Whether that is the end of it.
    """

    name: str
    is_file: bool
    data: bytes
    is_last: bool


class FormParts:
    """Reads a form piece by piece, and keeps nothing of it.

    Args:
        boundary: What is between the parts; see `boundary_of`.
    """

    def __init__(self, boundary: bytes) -> None:
        self._come: list[Piece] = []
        self._header = self._value = b""
        self._header_bytes = 0
        self._name, self._is_file = "", False  # of the part
        self._is_complete = False
        callbacks: dict[str, Any] = {
            "on_part_begin": self._begin,
            "on_header_field": self._add_to_header,
            "on_header_value": self._add_to_value,
            "on_header_end": self._end_header,
            "on_part_data": lambda data, start, end: self._add(data[start:end]),
            "on_part_end": lambda: self._add(b"", is_last=True),
            "on_end": self._complete,
        }
        self._parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]

    def read(self, chunk: bytes) -> list[Piece]:
        """Returns what comes in a chunk of the form.

        Raises:
            Problem: BAD_FORM: the form is malformed.
        """
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise bad_form(str(error)) from error
        come, self._come = self._come, []
        return come

    def end(self) -> None:
        """Checks, when all of the form has come, that it has an end.

        Raises:
            Problem: BAD_FORM: it has none.
        """
        if not self._is_complete:
            raise Problem(400, "the form has no end; send its closing boundary", "BAD_FORM", "body")

    def _add(self, data: bytes, is_last: bool = False) -> None:
        self._come.append(Piece(self._name, self._is_file, data, is_last))

    def _begin(self) -> None:
        self._header_bytes, self._name, self._is_file = 0, "", False

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
            self._is_file = b"filename" in options
        self._header = self._value = b""

    def _complete(self) -> None:
        self._is_complete = True


def boundary_of(content_type: str) -> bytes | None:
    """Returns what is between the parts of a form, b"" if it is not said; None for what is no form.

    Args:
        content_type: The request's header.
    """
    kind, options = parse_options_header(content_type)
    return options.get(b"boundary", b"") if kind == b"multipart/form-data" else None


def bad_form(why: str) -> Problem:
    """The answer to a form that cannot be read."""
    return Problem(400, f"the form cannot be read: {why}", "BAD_FORM", "body")
