"""Exceptions of the client, and their translation from and to gRPC's statuses."""

import contextlib
from collections.abc import Iterable

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status


class MaskwireError(Exception):
    """A request failed.

    Attributes:
        message: What is wrong, and the remedy.
        reason: Stable name of the cause, such as IMAGE_NOT_FOUND; empty if the server gave none.
        field: Path of the wrong request field, such as "prompts[0].points[2].x_px"; often empty.
        retry_after_s: Seconds after which a retry may succeed, if the server said; negative: it will not.
    """

    def __init__(self, message: str, reason: str = "", field: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.field = field
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class InvalidRequest(MaskwireError):
    """The request is wrong and stays wrong; `field` says where."""


class UnknownArgument(InvalidRequest, TypeError):
    """A function was given an argument that it does not have; the message suggests the closest one."""


class NotAuthenticated(MaskwireError):
    """The servers want a token, and this one is missing, invalid or expired."""


class NotAllowed(MaskwireError):
    """The token does not allow it."""


class ImageNotFound(MaskwireError):
    """No such image or model is stored or served; embed the image (again)."""


class FailedPrecondition(MaskwireError):
    """Something else has to change first: the model has no memory, or another stream has opened the track."""


class Overloaded(MaskwireError):
    """Too much at once; or too large, if `retry_after_s` is None."""


class ServerUnavailable(MaskwireError):
    """No server answers."""


class DeadlineExceeded(MaskwireError):
    """No answer came in time, by the server's clock or by this side's."""

    def __init__(
        self,
        message: str,
        reason: str = "DEADLINE_EXCEEDED",
        field: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, reason, field, retry_after_s)


class OutputMissing(MaskwireError):
    """A result does not hold the form of mask that is read from it."""


def bad_answer(said: str) -> MaskwireError:
    """The error of an answer that no server of this version sends.

    Args:
        said: What is wrong with it: "a mask is no run lengths".
    """
    return MaskwireError(
        f"the server's answer is damaged: {said}. Ask again; if that does not help, client and servers may be of "
        "different versions ('maskwire status')",
        "BAD_ANSWER",
    )


_KINDS: dict[int, type[MaskwireError]] = {
    grpc.StatusCode.INVALID_ARGUMENT.value[0]: InvalidRequest,
    grpc.StatusCode.UNAUTHENTICATED.value[0]: NotAuthenticated,
    grpc.StatusCode.PERMISSION_DENIED.value[0]: NotAllowed,
    grpc.StatusCode.NOT_FOUND.value[0]: ImageNotFound,
    grpc.StatusCode.FAILED_PRECONDITION.value[0]: FailedPrecondition,
    grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]: Overloaded,
    grpc.StatusCode.UNAVAILABLE.value[0]: ServerUnavailable,
    # Local cancellation raises asyncio.CancelledError instead; a server that stops cancels what it had not begun.
    grpc.StatusCode.CANCELLED.value[0]: ServerUnavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED.value[0]: DeadlineExceeded,
}


_DOMAIN = "maskwire"
_BROKEN_WRITE = "Internal error from Core"
_TOO_LARGE = "message larger than max"  # to be received, or to be sent


def from_status(status: Status) -> MaskwireError:
    """The error that a server describes in a google.rpc.Status. Details that cannot be read are left out."""
    reason, field, retry_after_s = "", "", None
    for detail in status.details:
        info, bad, retry = ErrorInfo(), BadRequest(), RetryInfo()
        with contextlib.suppress(DecodeError):
            if detail.Unpack(info):
                reason = info.reason
            elif detail.Unpack(bad) and bad.field_violations:
                field = bad.field_violations[0].field
            elif detail.Unpack(retry):
                retry_after_s = retry.retry_delay.ToMilliseconds() / 1e3
    return _KINDS.get(status.code, MaskwireError)(status.message, reason, field, retry_after_s)


def to_status(error: MaskwireError) -> Status:
    """The google.rpc.Status that `from_status` reads as this error: what the servers would have sent."""
    code = next((code for code, kind in _KINDS.items() if isinstance(error, kind)), grpc.StatusCode.INTERNAL.value[0])
    return make_status(code, error.message, error.reason or "INTERNAL", error.field, error.retry_after_s)


def make_status(code: int, message: str, reason: str, field: str, retry_after_s: float | None) -> Status:
    """A google.rpc.Status with ErrorInfo, and with BadRequest and RetryInfo if a field or a time to retry is given."""
    status = Status(code=code, message=message)
    status.details.add().Pack(ErrorInfo(reason=reason, domain=_DOMAIN))
    if field:
        violation = BadRequest.FieldViolation(field=field, description=message, reason=reason)
        status.details.add().Pack(BadRequest(field_violations=[violation]))
    if retry_after_s is not None:
        retry = RetryInfo()
        retry.retry_delay.FromNanoseconds(int(retry_after_s * 1e9))
        status.details.add().Pack(retry)
    return status


def from_rpc(error: grpc.aio.AioRpcError, server: str) -> MaskwireError:
    """The error of a failed call.

    Args:
        error: What grpc raised.
        server: The server that was called: "encoder at localhost:50051".
    """
    trailers: Iterable[tuple[str, str | bytes]] = error.trailing_metadata() or ()
    for key, value in trailers:
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            try:
                return from_status(Status.FromString(value))
            except DecodeError:
                break
    # An error without details comes from gRPC itself, or from a proxy in between.
    pushback = next((value for key, value in trailers if key == "grpc-retry-pushback-ms"), b"")
    try:
        retry_after_s = float(pushback) / 1e3
    except ValueError:
        retry_after_s = None
    # A connection that breaks during a write may be reported as an internal error of gRPC's core.
    broken = error.code() is grpc.StatusCode.INTERNAL and error.details() == _BROKEN_WRITE
    if broken or error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        variable = f"MASKWIRE_{server.split()[0].upper()}"
        return ServerUnavailable(
            f"cannot reach the {server}; is it running? Start everything with 'maskwire up', or set {variable}",
            retry_after_s=retry_after_s,
        )
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        kind_of_server, _, address = server.partition(" at ")
        return InvalidRequest(
            f"the server at {address} is not a Maskwire {kind_of_server} of this version; give the {kind_of_server}'s "
            f"address (--{kind_of_server}, or MASKWIRE_{kind_of_server.upper()})",
            "WRONG_SERVER",
        )
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in (error.details() or ""):
        return InvalidRequest(
            f"the {server} answered: {error.details()}; send fewer prompts with masks at once, or logits as fp16",
            "MESSAGE_TOO_LARGE",
        )
    kind = _KINDS.get(error.code().value[0], MaskwireError)
    return kind(f"the {server} answered {error.code().name}: {error.details()}", retry_after_s=retry_after_s)
