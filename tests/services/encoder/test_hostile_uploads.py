"""Uploads that are not meant well: they cost their senders' tenant alone, and only so much, and only so long."""

import hashlib
import queue
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from maskwire.v1 import encoder_pb2, encoder_pb2_grpc
from maskwire_core.tenancy import tokens

from testing import small_model
from testing.guarded import bearer
from testing.processes import resident_bytes, wait_until
from testing.servers import running_server
from testing.time_bounds import assert_within
from testing.wire import described, failing, frames, header, picture

MIB = 1 << 20
PAUSE_S = 2
SIZE = 20 * MIB
PARTS = 6
SPOOL = 300 * MIB  # of which one tenant alone gets two thirds: ten files of SIZE


@dataclass
class Server:
    stub: Any
    pid: int
    file: Path

    def token(self, namespace: str, **fields: Any) -> tuple[tuple[str, str], ...]:
        """Issues a token, and returns a call's metadata with it once the server knows it."""
        text, entry = tokens.issue(namespaces=[namespace], rights=["encode"], **fields)
        tokens.change_tokens(self.file, lambda entries: [*entries, entry])

        def known() -> bool:
            try:
                self.stub.ListModels(encoder_pb2.ListModelsRequest(), metadata=bearer(text))
            except grpc.RpcError:
                return False
            return True

        wait_until(known, 20)
        return bearer(text)


@pytest.fixture(scope="module")
def server(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("hostile")
    file = folder / "tokens.json"
    tokens.change_tokens(file, lambda entries: entries)
    options = {**small_model.options(folder), "cache": str(folder), "tokens": str(file), "spool": str(folder)}
    options |= {"upload-pause-s": str(PAUSE_S), "spool-bytes": str(SPOOL)}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    with (
        running_server("maskwire_encoder", valkey, *words) as (address, pid),
        grpc.insecure_channel(address) as channel,
    ):
        yield Server(encoder_pb2_grpc.EncoderServiceStub(channel), pid, file)


class Stream:
    """An EncodeImages call that begins uploads and completes none."""

    def __init__(self, server: Server, metadata: Any, uploads: int) -> None:
        self._requests: queue.Queue[encoder_pb2.EncodeImagesRequest | None] = queue.Queue()
        self._call = server.stub.EncodeImages(iter(self._requests.get, None), metadata=metadata)
        self.needed: set[str] = set()
        self.errors: Counter[str] = Counter()
        for number in range(uploads):
            digest = hashlib.sha256(f"{id(self)} {number}".encode()).digest()
            head = encoder_pb2.EncodeImageHeader(sha256=digest, size_bytes=SIZE)
            self.send(request_id=str(number), header=head)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def send(self, **fields: Any) -> None:
        self._requests.put(encoder_pb2.EncodeImagesRequest(**fields))

    def send_parts(self) -> None:
        """Sends some MiB of each file, in turn."""
        for _ in range(PARTS):
            for name in sorted(self.needed):
                self.send(request_id=name, chunk=bytes(MIB))

    def close(self) -> None:
        self._requests.put(None)
        self._reader.join(30)

    def _read(self) -> None:
        for response in self._call:
            if response.WhichOneof("outcome") == "content_needed":
                self.needed.add(response.request_id)
            else:
                self.errors[described(response.error)[0]] += 1


@pytest.mark.time_bound
def test_uploads_that_do_not_go_on(server: Server) -> None:
    greedy, modest = server.token("greedy"), server.token("modest")
    server.stub.EncodeImage(frames(picture(1)), metadata=modest)
    before = resident_bytes(server.pid)
    streams = [Stream(server, greedy, 16) for _ in range(2)]
    wait_until(lambda: all(len(stream.needed) == 16 for stream in streams), 20)
    for stream in streams:
        stream.send_parts()
    slowest_s = grown = 0.0
    number = 2
    deadline = time.monotonic() + 20
    while not sum(stream.errors["UPLOAD_STALLED"] for stream in streams) and time.monotonic() < deadline:
        started = time.monotonic()
        server.stub.EncodeImage(frames(picture(number)), metadata=modest, timeout=30)  # another tenant goes on
        slowest_s = max(slowest_s, time.monotonic() - started)
        grown = max(grown, resident_bytes(server.pid) - before)
        number += 1
    for stream in streams:
        stream.close()
    errors = streams[0].errors + streams[1].errors
    assert set(errors) <= {"TOO_MUCH_IN_PROGRESS", "UPLOAD_STALLED", "UNEXPECTED_CHUNK", "INCOMPLETE"}
    assert errors["TOO_MUCH_IN_PROGRESS"] >= 22
    assert errors["UPLOAD_STALLED"] >= 1
    assert grown < 100 * MIB
    assert_within(slowest_s, 3)
    assert not server.stub.EncodeImage(frames(picture(99)), metadata=greedy).cached  # all was given back


def test_a_false_size_is_paid_for(server: Server) -> None:
    slow = server.token("slow", bytes_per_s=1000)
    data = picture(3, 900, 900)
    assert len(data) > 2 * MIB
    limited = ("RESOURCE_EXHAUSTED", "RATE_LIMITED", "")

    def lying() -> Iterator[encoder_pb2.EncodeImageRequest]:
        yield encoder_pb2.EncodeImageRequest(header=header(data, size_bytes=1))
        yield encoder_pb2.EncodeImageRequest(chunk=data)

    def send() -> None:
        server.stub.EncodeImage(lying(), metadata=slow)

    assert failing(send) == ("INVALID_ARGUMENT", "TOO_MANY_BYTES", "chunk")
    assert failing(send) == limited  # before the file is asked for
    other = server.token("other", bytes_per_s=1000)

    def unasked() -> Iterator[encoder_pb2.EncodeImagesRequest]:
        for _ in range(20):
            yield encoder_pb2.EncodeImagesRequest(request_id="none", chunk=data)

    assert failing(lambda: list(server.stub.EncodeImages(unasked(), metadata=other))) == limited


def test_a_stream_ends_with_a_false_size(server: Server) -> None:
    metadata = server.token("liar")
    requests: queue.Queue[encoder_pb2.EncodeImagesRequest] = queue.Queue()
    call = server.stub.EncodeImages(iter(requests.get, None), metadata=metadata)
    requests.put(encoder_pb2.EncodeImagesRequest(request_id="a", header=header(b"four", sha256=bytes(32))))
    assert next(call).WhichOneof("outcome") == "content_needed"
    requests.put(encoder_pb2.EncodeImagesRequest(request_id="a", chunk=b"five!"))
    assert failing(lambda: next(call)) == ("INVALID_ARGUMENT", "TOO_MANY_BYTES", "chunk")
    requests.put(None)  # type: ignore[arg-type]


def test_a_file_on_disk_gives_the_same_embedding(server: Server) -> None:
    """Of a picture that is larger than what is kept in memory."""
    metadata = server.token("large")
    data = picture(4, 1800, 1700)
    assert len(data) > 8 * MIB
    assert failing(
        lambda: server.stub.EncodeImage(frames(data[:-1], MIB, sha256=header(data).sha256), metadata=metadata)
    )[1] == ("DIGEST_MISMATCH")
    stored = server.stub.EncodeImage(frames(data, MIB), metadata=metadata)
    assert (stored.cached, stored.image.width_px, stored.image.height_px) == (False, 1800, 1700)
