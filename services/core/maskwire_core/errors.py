"""Errors of the servers.

ServiceError                 returned to the caller: status code, stable reason, field path, when to retry
|- InvalidArgument           the request is invalid, and retrying does not help
|- Unauthenticated           the caller has no valid token
|- PermissionDenied          the token does not allow it
|- NotFound                  the image or model does not exist
|- FailedPrecondition        the request is valid, but not in this state
|- ResourceExhausted         too much at once, or too large
|- Unavailable               retrying may help
|- DeadlineExceeded          the caller's deadline passed
|- Internal                  the server is at fault, and retrying does not help
CorruptValue                 a stored value is damaged; never reaches a caller

They are raised where the cause is found, and become gRPC statuses in rpc/interceptor.py alone. Streams, which outlive
an error, send what `rpc.error_status.status_of` makes of it.
"""

import grpc
from google.rpc.status_pb2 import Status
from maskwire.errors import make_status


class CorruptValue(Exception):
    """A value in the store is truncated or damaged, or another version wrote it."""


class ServiceError(Exception):
    """An error that a caller receives.

    Args:
        reason: Stable, machine-readable name in UPPER_SNAKE_CASE.
        message: One sentence for people: what is wrong, and the remedy.
        field: Path of the invalid field of the request, such as "prompts[0].points[2].x_px"; empty if there is none.
        retry_after_s: Seconds after which a retry may succeed; None if unknown, or if retrying does not help.
    """

    code = grpc.StatusCode.INTERNAL

    def __init__(self, reason: str, message: str, *, field: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s

    def status(self) -> Status:
        """The error as a google.rpc.Status with ErrorInfo, and BadRequest and RetryInfo if they apply."""
        return make_status(self.code.value[0], self.message, self.reason, self.field, self.retry_after_s)


class InvalidArgument(ServiceError):
    code = grpc.StatusCode.INVALID_ARGUMENT


class Unauthenticated(ServiceError):
    code = grpc.StatusCode.UNAUTHENTICATED


class PermissionDenied(ServiceError):
    code = grpc.StatusCode.PERMISSION_DENIED


class NotFound(ServiceError):
    code = grpc.StatusCode.NOT_FOUND


class FailedPrecondition(ServiceError):
    code = grpc.StatusCode.FAILED_PRECONDITION


class ResourceExhausted(ServiceError):
    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unavailable(ServiceError):
    code = grpc.StatusCode.UNAVAILABLE


class DeadlineExceeded(ServiceError):
    code = grpc.StatusCode.DEADLINE_EXCEEDED


class Internal(ServiceError):
    code = grpc.StatusCode.INTERNAL


def of_code(code: int) -> type[ServiceError]:
    """Returns the kind of error that has a status code, as another server sent it."""
    kinds = ServiceError.__subclasses__()
    return next((kind for kind in kinds if kind.code.value[0] == code), Internal)


def not_finite(model: str, found: str) -> Internal:
    """The error of a model whose output has NaN or infinite values.

    Args:
        model: Name of the model.
        found: What is wrong with the output, as a clause.
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
