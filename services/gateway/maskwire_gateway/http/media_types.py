"""Media types and encodings that request bodies declare."""

from collections.abc import Sequence

from maskwire_core.http.problems import Problem
from starlette.requests import Request

NOT_JSON = ("multipart/", "image/", "video/", "application/octet-stream", "application/x-protobuf")
"""Prefixes of media types whose bodies are not JSON."""

_WRONG_TYPE = "UNSUPPORTED_MEDIA_TYPE"


def check_media_type(request: Request, wanted: str, refused: Sequence[str]) -> None:
    """Refuses a body that is declared as another type or is compressed. Unlisted types pass, such as curl's default.

    Args:
        request: The request.
        wanted: What the body should be, for the error.
        refused: Prefixes of media types.

    Raises:
        Problem: UNSUPPORTED_MEDIA_TYPE.
    """
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding not in ("", "identity"):
        raise Problem(
            415, f"send the body as it is, without content-encoding {encoding}", _WRONG_TYPE, "content-encoding"
        )
    kind = request.headers.get("content-type", "").lower()
    if kind.startswith(tuple(refused)):
        raise Problem(415, f"the body should be {wanted}, and its content-type is {kind}", _WRONG_TYPE, "content-type")
