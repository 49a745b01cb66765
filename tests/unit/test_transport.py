"""The client's transport: errors as statuses, callers, and kinds of addresses."""

import asyncio
import gc
import weakref
from typing import Any

import grpc
import pytest
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
from maskwire.errors import from_status
from maskwire.token_bucket import TokenBucket
from maskwire.transport import Caller, is_loopback, to_status
from maskwire.transport.calls import Attempt, call_with_retries
from maskwire.transport.channels import Channels
from maskwire.transport.credentials import is_local


@pytest.mark.parametrize(
    "kind",
    [
        DeadlineExceeded,
        FailedPrecondition,
        ImageNotFound,
        InvalidRequest,
        MaskwireError,
        NotAllowed,
        NotAuthenticated,
        Overloaded,
        ServerUnavailable,
    ],
)
def test_an_error_survives_the_wire(kind: type[MaskwireError]) -> None:
    error = kind("it is wrong; do it right", "SOME_REASON", "prompts[0].box", 1.5)
    again = from_status(to_status(error))
    assert type(again) is kind
    assert vars(again) == vars(error)
    bare = from_status(to_status(kind("it is wrong")))
    assert (type(bare), bare.field, bare.retry_after_s) == (kind, "", None)


def test_who_calls_is_sent_with_each_call() -> None:
    assert Caller().metadata == ()
    assert Caller("secret", "tenant").metadata == (("authorization", "Bearer secret"),)
    for token in ("two words", "line\nbreak", "ключ"):
        with pytest.raises(InvalidRequest) as caught:
            Caller(token)
        assert (caught.value.reason, caught.value.field) == ("BAD_TOKEN", "token")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("app.localhost", True),
        ("notlocalhost", False),
        ("127.0.0.1.example.org", False),  # a name, whatever it begins with
        ("localhost.example.org", False),
        ("10.0.0.1", False),
        ("", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("localhost:50051", True),
        ("127.0.0.1:50051", True),
        ("[::1]:50051", True),
        ("::1", True),
        ("0.0.0.0:50051", True),
        ("[::]:50051", True),
        ("dns:///localhost:50051", True),
        ("dns:localhost", True),
        ("ipv4:127.0.0.1:50051", True),
        ("ipv6:[::1]:50051", True),
        ("unix:/run/maskwire.sock", True),
        ("unix:50051", False),  # a host of that name
        ("dns:///encoder.example:50051", False),
        ("encoder:50051", False),
        ("10.0.0.1:50051", False),
    ],
)
def test_servers_on_this_machine(address: str, expected: bool) -> None:
    assert is_local(address) is expected


class Nowhere(Channels):
    """A server that refuses everything."""

    def __init__(self) -> None:
        self.kind = "encoder"
        self.addresses = ("localhost:1",)
        self.budget = TokenBucket(1, 10)

    def pick(self, image_id: str | None, attempt: int) -> Any:
        return None, self.addresses[0]


class File:
    """What is sent."""


def test_an_error_keeps_nothing_of_what_was_sent() -> None:
    async def fail(code: grpc.StatusCode) -> weakref.ref[File]:
        file = File()

        async def send(_: Attempt) -> File:
            try:
                raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), "no")
            finally:
                assert file

        with pytest.raises(MaskwireError) as caught:
            await call_with_retries(Nowhere(), Caller(timeout_s=0.2, retry_s=0.1), None, send)
        del caught
        return weakref.ref(file)

    gc.disable()
    try:
        for code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED):
            assert asyncio.run(fail(code))() is None
    finally:
        gc.enable()
