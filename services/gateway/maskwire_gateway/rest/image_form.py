"""An image file in a form, with fields beside it."""

import io
from collections.abc import Iterable

from maskwire.suggest import shortened
from maskwire_core.http.problems import Problem

from maskwire_gateway.http.routing import check_names
from maskwire_gateway.rest.form_parts import FormParts, bad_form

FORM_BYTES = 1 << 16
"""What a form may add to its file."""

_FILE = "file"
_MAX_PARTS = 18
_PIECE_BYTES = 1 << 18


def read_image_form(data: bytes, boundary: bytes, fields: Iterable[str]) -> tuple[bytes, list[tuple[str, str]]]:
    """Reads a form. Takes little more memory than the form and the file.

    Args:
        data: The form.
        boundary: What is between its parts.
        fields: Names that its other parts may have.

    Returns:
        The file, and the names and values of the other parts.

    Raises:
        Problem: BAD_FORM: the form is malformed. BAD_PARAMETER: a part has another name, or comes twice. NO_FILE.
    """
    if not boundary:
        raise bad_form("its content-type names no boundary")
    form, file, names, values = FormParts(boundary), io.BytesIO(), list[str](), list[bytes]()
    has_file = is_within = False
    for at in range(0, len(data), _PIECE_BYTES):
        for piece in form.read(data[at : at + _PIECE_BYTES]):
            if not is_within:
                names.append(piece.name)
                values.append(b"")
                if piece.is_file and piece.name != _FILE:
                    name = shortened(piece.name)
                    raise Problem(400, f"the image is in a part named {name!r}; name it 'file'", "BAD_PARAMETER", name)
                if len(names) > _MAX_PARTS:
                    raise bad_form(f"it has more than {_MAX_PARTS} parts")
            is_within = not piece.is_last
            if piece.is_file:
                has_file = True
                file.write(piece.data)
            else:
                values[-1] += piece.data
                if len(values[-1]) > FORM_BYTES:
                    raise bad_form(f"a part without a file name has more than {FORM_BYTES} bytes")
    form.end()
    check_names(names, [_FILE, *fields], "part")
    if not has_file:
        raise Problem(400, 'the form has no file in a part named "file"', "NO_FILE", _FILE)
    given = [(name, value.decode("utf-8", "replace")) for name, value in zip(names, values, strict=True)]
    return file.getvalue(), [pair for pair in given if pair[0] != _FILE]
