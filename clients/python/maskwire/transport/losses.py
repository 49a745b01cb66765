"""Servers that were lost under a request: it may be what ended them, and is then not sent to one after another."""

import re

import grpc

from maskwire.errors import ServerUnavailable

_MAX_LOSSES = 2
"""After as many servers a request is given up. One more than the first: most servers end for other reasons."""

# What gRPC, and Envoy in between, say of a call that no server began, or that one ended on purpose.
_NEVER_BEGUN = re.compile(
    r"failed to connect|connections to all backends|resolution|resolver|no such host|empty address|refused|"
    r"cancelling all calls|no healthy upstream|no route|connection failure|connection timeout|error code: 0",
    re.IGNORECASE,
)


class Losses:
    """Counts the servers that were lost under a request."""

    def __init__(self) -> None:
        self._count = 0

    def __bool__(self) -> bool:
        return self._count > 0

    @property
    def too_many(self) -> bool:
        """Whether the request must not be sent to another server."""
        return self._count >= _MAX_LOSSES

    def note(self, error: Exception) -> None:
        """Counts a call's error if it means that the server was lost after it had been sent the request."""
        if isinstance(error, grpc.aio.AioRpcError) and is_loss(error):
            self._count += 1

    def error(self, kind: str) -> ServerUnavailable:
        """What callers are told.

        Args:
            kind: "encoder" or "decoder".
        """
        return ServerUnavailable(
            f"{_MAX_LOSSES} {kind}s were lost while they had this request; it may be what ends them, and is sent to no "
            "other. Their logs tell more",
            "SERVERS_LOST",
            retry_after_s=-1,
        )


def is_loss(error: grpc.aio.AioRpcError) -> bool:
    """Whether the connection to a server broke after a request had been sent: it has crashed, was killed, or hangs."""
    if any(key == "grpc-status-details-bin" for key, _ in error.trailing_metadata() or ()):
        return False  # the server said it
    broken_write = error.code() is grpc.StatusCode.INTERNAL and error.details() == "Internal error from Core"
    return broken_write or (
        error.code() is grpc.StatusCode.UNAVAILABLE and not _NEVER_BEGUN.search(error.details() or "")
    )
