"""Errors as HTTP answers tell them."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as field_
from typing import Any

from maskwire import (
    DeadlineExceeded,
    FailedPrecondition,
    ImageNotFound,
    InvalidRequest,
    MaskwireError,
    NotAllowed,
    NotAuthenticated,
    Overloaded,
    ServerUnavailable,
)

log = logging.getLogger(__name__)

RETRY_S = 1.0
"""When to retry, in seconds, where a server does not say."""

_TOO_LARGE = 413
_TOO_MANY = 429
_STATUSES: tuple[tuple[type[MaskwireError], int], ...] = (
    (InvalidRequest, 400),
    (NotAuthenticated, 401),
    (NotAllowed, 403),
    (ImageNotFound, 404),
    (FailedPrecondition, 409),
    (Overloaded, _TOO_MANY),
    (ServerUnavailable, 503),
    (DeadlineExceeded, 504),
    (MaskwireError, 500),
)


@dataclass
class Problem(Exception):
    """An answer that is an error."""

    status: int  # status code of HTTP
    message: str  # one sentence: what is wrong, and the remedy
    reason: str = ""  # stable name in UPPER_SNAKE_CASE
    field: str = ""  # path of the wrong field of the request; often empty
    retry_after_s: float | None = None  # seconds after which a retry may succeed; None if it will not
    more_headers: Mapping[str, str] = field_(default_factory=dict)  # further headers of the answer
    detail: Sequence[Any] = ()  # everything that is wrong with a body, in the form of FastAPI's servers

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the answer: Retry-After in whole seconds, and WWW-Authenticate for 401."""
        headers = dict(self.more_headers)
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, -int(-self.retry_after_s // 1)))
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers

    def content(self) -> dict[str, Any]:
        """The answer's JSON object."""
        content: dict[str, Any] = {"message": self.message, "reason": self.reason, "field": self.field}
        if self.retry_after_s is not None:
            content["retry_after_s"] = self.retry_after_s
        if self.detail:
            content["detail"] = self.detail
        return content


def busy(message: str, reason: str) -> Problem:
    """The answer of a server that has too much to do."""
    return Problem(_TOO_MANY, message, reason, retry_after_s=RETRY_S)


def problem_of(error: Exception) -> Problem:
    """The answer to an error of the client. Any other error is logged, and answered without its details."""
    if isinstance(error, Problem):
        return error
    if not isinstance(error, MaskwireError):
        log.error("unexpected error", exc_info=error)
        return Problem(500, "unexpected error; the server's log tells more", "INTERNAL")
    status = next(status for kind, status in _STATUSES if isinstance(error, kind))
    retry_after_s = error.retry_after_s
    if status == _TOO_MANY and retry_after_s is None:
        status = _TOO_LARGE  # it stays so; too much at once passes
    elif status == 503 and (retry_after_s or 0) < 0:
        status, retry_after_s = 500, None  # it must not be tried again
    elif status == 503 and retry_after_s is None:
        retry_after_s = RETRY_S
    return Problem(status, error.message, error.reason, error.field, retry_after_s)
