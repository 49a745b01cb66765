"""What goes wrong, as HTTP and as google.rpc.Status tell it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as field_
from typing import Any

from google.rpc.status_pb2 import Status
from maskwire import (
    DeadlineExceeded,
    ImageNotFound,
    InvalidRequest,
    MaskwireError,
    NotAllowed,
    NotAuthenticated,
    Overloaded,
    ServerUnavailable,
)
from maskwire_core import errors
from starlette.responses import JSONResponse, Response

log = logging.getLogger(__name__)

_RETRY_S = 1.0


@dataclass
class Problem(Exception):
    """An answer that is an error.

    Attributes:
        status: Of HTTP.
        message: One sentence: what is wrong, and the remedy.
        reason: Stable name in UPPER_SNAKE_CASE.
        field: Path of the wrong field of the request; often empty.
        retry_after_s: When a retry may succeed.
        more_headers: Of the answer.
        detail: All that is wrong with a body, as FastAPI's servers tell it.
    """

    status: int
    message: str
    reason: str = ""
    field: str = ""
    retry_after_s: float | None = None
    more_headers: Mapping[str, str] = field_(default_factory=dict)
    detail: Sequence[Any] = ()

    @property
    def headers(self) -> dict[str, str]:
        """Retry-After in whole seconds; and of a 401 what is wanted."""
        headers = dict(self.more_headers)
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, -int(-self.retry_after_s // 1)))
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers

    def content(self) -> dict[str, object]:
        """As JSON tells it."""
        content: dict[str, object] = {"message": self.message, "reason": self.reason, "field": self.field}
        if self.retry_after_s is not None:
            content["retry_after_s"] = self.retry_after_s
        if self.detail:
            content["detail"] = self.detail
        return content

    def response(self, path: str = "") -> Response:
        """For a request of a path: callers of /sam2 know 503, and not 429, and read the message alone."""
        status, content = self.status, self.content()
        if path.startswith("/sam2/"):
            status = 503 if status == 429 else status
            if self.field and status in (400, 422):
                content["message"] = f"{self.field}: {self.message}"
        return JSONResponse(content, status, self.headers)


def busy(message: str, reason: str) -> Problem:
    """This gateway has too much to do."""
    return Problem(429, message, reason, retry_after_s=_RETRY_S)


def problem_of(error: Exception) -> Problem:
    """An error of the client or of this gateway. What is neither is logged, and told without its details."""
    match error:
        case Problem():
            return error
        case InvalidRequest():
            status = 400
        case NotAuthenticated():
            status = 401
        case NotAllowed():
            status = 403
        case ImageNotFound():
            status = 404
        case Overloaded():
            # What is too large stays so; what is too much at once passes.
            status = 413 if error.retry_after_s is None else 429
        case ServerUnavailable():
            status = 503
        case DeadlineExceeded():
            status = 504
        case MaskwireError():
            status = 500
        case _:
            log.error("unexpected error", exc_info=error)
            return Problem(500, "unexpected error; the gateway's log tells more", "INTERNAL")
    retry_after_s = _RETRY_S if status == 503 and error.retry_after_s is None else error.retry_after_s
    return Problem(status, error.message, error.reason, error.field, retry_after_s)


_CODES: list[tuple[type[MaskwireError], type[errors.ServiceError]]] = [
    (InvalidRequest, errors.InvalidArgument),
    (NotAuthenticated, errors.Unauthenticated),
    (NotAllowed, errors.PermissionDenied),
    (ImageNotFound, errors.NotFound),
    (Overloaded, errors.ResourceExhausted),
    (ServerUnavailable, errors.Unavailable),
    (DeadlineExceeded, errors.DeadlineExceeded),
]


def status_of(error: MaskwireError) -> Status:
    """An error of the client as the servers tell it."""
    for kind, told in _CODES:
        if isinstance(error, kind):
            retry_after_s = _RETRY_S if kind is ServerUnavailable and not error.retry_after_s else error.retry_after_s
            return told(error.reason, error.message, field=error.field, retry_after_s=retry_after_s).status()
    return errors.ServiceError(error.reason or "INTERNAL", error.message).status()
