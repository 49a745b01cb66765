"""Errors that servers answer with, and the one that a bad stored value raises.

ServiceError                 what a caller is told: status code, stable reason, field paths, when to retry
|- InvalidArgument           the request is wrong and stays wrong
|- Unauthenticated           no valid token
|- PermissionDenied          the token does not allow it
|- NotFound                  the image or model is not there
|- ResourceExhausted         too much at once, or too large
|- Unavailable               try again
|- DeadlineExceeded          the caller's deadline passed
|- Internal                  the server is at fault, and a retry does not help
CorruptValue                 a stored value is not what its key says; never reaches a caller
"""

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

DOMAIN = "maskwire"


class CorruptValue(Exception):
    """A value in the store is truncated, damaged, or of another version."""


class ServiceError(Exception):
    """An answer that is an error.

    Args:
        reason: Stable, machine-readable name in UPPER_SNAKE_CASE.
        message: One sentence for people: what is wrong and what to do.
        field: Path of the offending request field, such as "prompts[0].points[2].x_px".
        retry_after_s: Seconds after which a retry may succeed.
    """

    code = grpc.StatusCode.INTERNAL

    def __init__(self, reason: str, message: str, *, field: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s

    def status(self) -> Status:
        """The error as google.rpc.Status, with its details."""
        details: list[ErrorInfo | BadRequest | RetryInfo] = [ErrorInfo(reason=self.reason, domain=DOMAIN)]
        if self.field:
            violation = BadRequest.FieldViolation(field=self.field, description=self.message, reason=self.reason)
            details.append(BadRequest(field_violations=[violation]))
        if self.retry_after_s is not None:
            delay = Duration()
            delay.FromNanoseconds(int(self.retry_after_s * 1e9))
            details.append(RetryInfo(retry_delay=delay))
        status = Status(code=self.code.value[0], message=self.message)
        for detail in details:
            packed = Any()
            packed.Pack(detail)
            status.details.append(packed)
        return status


class InvalidArgument(ServiceError):
    code = grpc.StatusCode.INVALID_ARGUMENT


class Unauthenticated(ServiceError):
    code = grpc.StatusCode.UNAUTHENTICATED


class PermissionDenied(ServiceError):
    code = grpc.StatusCode.PERMISSION_DENIED


class NotFound(ServiceError):
    code = grpc.StatusCode.NOT_FOUND


class ResourceExhausted(ServiceError):
    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unavailable(ServiceError):
    code = grpc.StatusCode.UNAVAILABLE


class DeadlineExceeded(ServiceError):
    code = grpc.StatusCode.DEADLINE_EXCEEDED


class Internal(ServiceError):
    code = grpc.StatusCode.INTERNAL


def not_finite(model: str, found: str) -> Internal:
    """A model does not give numbers.

    Args:
        model: Its name.
        found: What is wrong, as a clause.
    """
    return Internal(
        "MODEL_OUTPUT_NOT_FINITE",
        f"model {model!r} fails on this: {found}; serve another checkpoint, or start the encoder with --precision fp32 "
        "and --store-codec fp32",
    )


def image_not_found(image_id: str) -> NotFound:
    return NotFound("IMAGE_NOT_FOUND", f"no image named {image_id!r} is stored; embed it first", field="image_id")


def embedding_expired(image_id: str) -> NotFound:
    return NotFound("EMBEDDING_EXPIRED", f"the embedding of {image_id!r} is gone; embed it again", field="image_id")
