"""Embeddings and exported decoders for callers who decode by themselves, over gRPC and HTTP."""

import asyncio
import hashlib
import io
import re
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from maskwire import Client
from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import decoder_pb2_grpc
from maskwire_core import call_context
from maskwire_core.models.graph_archive import GraphArchive
from maskwire_core.storage.embedding import Header, convert, pack, read_header, unpack
from maskwire_core.storage.exports import get_decoder
from maskwire_core.storage.store import Store
from maskwire_core.tenancy.tenant import EVERYBODY
from maskwire_decoder.downloads import Downloads, File
from numpy.typing import NDArray

from testing.servers import Stack, server
from testing.wire import failing

EMBEDDING = "/v1/images/cup-file/embedding"
PLANES = np.arange(-24, 24, dtype=np.int16).reshape(3, 4, 4)
KLT = Header("default", "e" * 64, "demo", "f", "d" * 64, 10, 20, "klt", 0)


@pytest.fixture(scope="module")
def opened(stack: Stack) -> Iterator[Store]:
    store = Store(stack.redis_url)
    yield store
    store.close()


@pytest.fixture(scope="module")
def stored(client: Client, opened: Store, photo: Path) -> bytes:
    """The bytes that the store has of the image "cup-file"."""
    key = client.embed(photo, image_id="cup-file").content_key
    value = opened.read_embedding("default", key)
    assert value is not None
    return bytes(value)


@pytest.fixture(scope="module")
def decoder_path(stored: bytes) -> str:
    return f"/v1/decoders/{read_header(stored)[0].decoder}"


def test_the_bytes_are_those_of_the_store(http: httpx.Client, decoder: Any, stored: bytes) -> None:
    answer = http.get(EMBEDDING)
    assert answer.content == stored
    assert answer.headers["content-length"] == str(len(stored))
    header, _ = read_header(stored)
    etag = answer.headers["etag"]
    assert re.fullmatch(rf'"{header.content_key}-{header.codec}-[\d.]+"', etag)
    assert answer.headers["cache-control"] == "private, no-cache"
    assert http.get(EMBEDDING, params={"content_key": header.content_key}).content == stored
    info, *chunks = decoder.GetEmbedding(pb.GetEmbeddingRequest(image_id="cup-file"))
    assert (info.info.total_bytes, info.info.etag) == (len(stored), etag.strip('"'))
    assert b"".join(each.chunk for each in chunks) == stored
    assert max(len(each.chunk) for each in chunks) == 1 << 16
    head = http.head(EMBEDDING)
    assert (head.content, head.headers["etag"], head.headers["content-length"]) == (b"", etag, str(len(stored)))


def test_what_the_caller_has_is_not_sent_again(http: httpx.Client, decoder: Any, stored: bytes) -> None:
    etag = http.head(EMBEDDING).headers["etag"]
    for known in (etag, f'"other", W/{etag}'):
        again = http.get(EMBEDDING, headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert http.get(EMBEDDING, headers={"If-None-Match": '"other"'}).content == stored
    request = pb.GetEmbeddingRequest(image_id="cup-file", known_etags=[etag.strip('"')])
    assert [each.info.total_bytes for each in decoder.GetEmbedding(request)] == [0]


@pytest.mark.parametrize(
    ("given", "first", "last"), [("0-99", 0, 99), ("70000-200000", 70_000, 200_000), ("100-", 100, None)]
)
def test_a_part_is_sent(http: httpx.Client, stored: bytes, given: str, first: int, last: int | None) -> None:
    last = len(stored) - 1 if last is None else last
    etag = http.head(EMBEDDING).headers["etag"]
    for more in ({}, {"If-Range": etag}):
        part = http.get(EMBEDDING, headers={"Range": f"bytes={given}", **more})
        assert (part.status_code, part.content) == (206, stored[first : last + 1])
        assert part.headers["content-range"] == f"bytes {first}-{last}/{len(stored)}"


def test_other_ranges(http: httpx.Client, stored: bytes) -> None:
    for whole in ({"Range": "bytes=-5"}, {"Range": "bytes=0-1,4-5"}, {"Range": "bytes=0-9", "If-Range": '"older"'}):
        answer = http.get(EMBEDDING, headers=whole)
        assert (answer.status_code, answer.content) == (200, stored)
    beyond = http.get(EMBEDDING, headers={"Range": f"bytes={len(stored)}-"})
    assert (beyond.status_code, beyond.json()["reason"]) == (416, "BAD_RANGE")
    assert beyond.headers["content-range"] == f"bytes */{len(stored)}"


@pytest.mark.parametrize("codec", ["fp32", "fp16", "int8", "int4"])
def test_another_codec(http: httpx.Client, stored: bytes, codec: str) -> None:
    answer = http.get(EMBEDDING, params={"codec": codec})
    own = unpack(stored)
    if codec == own.header.codec:
        assert answer.content == stored
        return
    assert answer.content == convert(stored, codec)
    given = unpack(answer.content)
    assert (given.header.codec, given.header.content_key) == (codec, own.header.content_key)
    worst = {"fp32": 0, "fp16": 1e-3, "int8": 1e-2, "int4": 0.1}[codec]
    for name, tensor in own.tensors.items():
        values = tensor.astype(np.float32)
        assert np.abs(given.tensors[name] - values).max() <= worst * np.abs(values).max(), name


def test_klt_is_sent_as_it_is(http: httpx.Client, opened: Store) -> None:
    value = pack(KLT, {"image_embed": PLANES})
    opened.put_embedding("default", KLT.content_key, value, ttl_s=60)
    path, chosen = "/v1/images/any/embedding", {"content_key": KLT.content_key}
    for codec in ("", "klt"):
        assert http.get(path, params={**chosen, "codec": codec}).content == value
    refused = http.get(path, params={**chosen, "codec": "fp16"})
    assert (refused.status_code, refused.json()["reason"], refused.json()["field"]) == (
        400,
        "CODEC_NOT_AVAILABLE",
        "codec",
    )
    assert http.get(EMBEDDING, params={"codec": "klt"}).json()["reason"] == "CODEC_NOT_AVAILABLE"


def test_a_damaged_embedding_is_not_sent(http: httpx.Client, opened: Store) -> None:
    key = "f" * 64
    value = bytearray(pack(Header("default", key, "demo", "f", "d", 9, 9, "klt", 0), {"image_embed": PLANES}))
    value[-64] ^= 1  # of the payload
    opened.put_embedding("default", key, bytes(value), ttl_s=60)
    answer = http.get("/v1/images/any/embedding", params={"content_key": key})
    assert (answer.status_code, answer.json()["reason"]) == (404, "EMBEDDING_EXPIRED")


@pytest.mark.parametrize(
    ("path", "query", "status", "reason", "field"),
    [
        (EMBEDDING, {"codec": "zip"}, 400, "BAD_CODEC", "codec"),
        (EMBEDDING, {"part": "1"}, 400, "BAD_PARAMETER", "part"),
        (EMBEDDING, {"namespace": "others"}, 404, "IMAGE_NOT_FOUND", "image_id"),
        (EMBEDDING, {"content_key": "0" * 64}, 404, "EMBEDDING_EXPIRED", "image_id"),
        ("/v1/images/nobody/embedding", {}, 404, "IMAGE_NOT_FOUND", "image_id"),
        ("/v1/decoders/x/click", {}, 400, "BAD_DIGEST", "decoder"),
        (f"/v1/decoders/{'0' * 64}/click", {}, 404, "DECODER_NOT_FOUND", "decoder"),
        ("{decoder}/clock", {}, 400, "NO_SUCH_GRAPH", "graphs"),
        ("{decoder}/click,click", {}, 400, "NO_SUCH_GRAPH", "graphs"),
        ("{decoder}/click", {"without": "clock"}, 400, "NO_SUCH_GRAPH", "without"),
        ("{decoder}/click", {"weights": "quarter"}, 400, "BAD_WEIGHTS", "weights"),
    ],
)
def test_refusals(
    http: httpx.Client, decoder_path: str, path: str, query: dict[str, str], status: int, reason: str, field: str
) -> None:
    answer = http.get(path.format(decoder=decoder_path), params=query)
    assert (answer.status_code, answer.json()["reason"], answer.json()["field"]) == (status, reason, field)


def test_graphs_of_a_decoder(http: httpx.Client, opened: Store, stored: bytes, decoder_path: str) -> None:
    bundle = get_decoder(opened, read_header(stored)[0].decoder)
    assert bundle is not None
    answer = http.get(f"{decoder_path}/image_fp16,click")
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
    given = archive(answer.content)
    assert given.config["image_size"] == 512
    assert given.graphs == {name: bundle.graphs[name] for name in ("click", "image_fp16")}
    assert set(given.weights) == {weight for graph in given.graphs.values() for weight in graph.weights}
    for name, array in given.weights.items():
        np.testing.assert_array_equal(array, bundle.weights[name])
    more = http.get(f"{decoder_path}/refine,mask", params={"without": "image_fp16,click"})
    names = re.findall(rb"([\w.]+)\.npy", more.content)
    wanted = {weight for name in ("refine", "mask") for weight in bundle.graphs[name].weights}
    assert {name.decode() for name in names} == wanted - set(given.weights)
    assert len(more.content) < len(answer.content)
    # The order of names does not matter, and parts and etags are those of other files.
    assert http.get(f"{decoder_path}/click,image_fp16").headers["etag"] == answer.headers["etag"]
    part = http.get(f"{decoder_path}/click", headers={"Range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, b"PK\x03\x04")
    known = {"If-None-Match": answer.headers["etag"]}
    assert http.get(f"{decoder_path}/image_fp16,click", headers=known).status_code == 304


def test_weights_in_half_precision(http: httpx.Client, opened: Store, stored: bytes, decoder_path: str) -> None:
    bundle = get_decoder(opened, read_header(stored)[0].decoder)
    assert bundle is not None
    whole, compact, half = (
        http.get(f"{decoder_path}/click", params={"weights": form} if form else {}) for form in ("", "compact", "half")
    )
    assert len({each.headers["etag"] for each in (whole, compact, half)}) == 3
    assert len(half.content) <= len(compact.content) < 0.6 * len(whole.content)  # the demo model's own are half
    assert arrays(compact.content).keys() == arrays(half.content).keys() == set(bundle.graphs["click"].weights)
    for name, array in arrays(compact.content).items():
        np.testing.assert_array_equal(array, bundle.weights[name])
    for name, array in arrays(half.content).items():
        full = bundle.weights[name]
        assert array.dtype == (np.float16 if full.dtype == np.float32 else full.dtype)
        np.testing.assert_array_equal(array, full.astype(array.dtype))


def test_a_server_may_give_out_nothing(stack: Stack, stored: bytes) -> None:
    with (
        server("maskwire_decoder", stack.redis_url, "--downloads", "false") as address,
        grpc.insecure_channel(address) as channel,
    ):
        stub = decoder_pb2_grpc.DecoderServiceStub(channel)
        off = ("PERMISSION_DENIED", "DOWNLOADS_OFF", "")
        assert failing(lambda: list(stub.GetEmbedding(pb.GetEmbeddingRequest(image_id="cup-file")))) == off
        request = pb.GetDecoderRequest(decoder=read_header(stored)[0].decoder, graphs=["click"])
        assert failing(lambda: list(stub.GetDecoder(request))) == off


def arrays(content: bytes) -> dict[str, NDArray[Any]]:
    """Reads the weights of an archive that may be compressed."""
    with zipfile.ZipFile(io.BytesIO(content)) as opened:
        names = [name for name in opened.namelist() if name.endswith(".npy")]
        return {name.removesuffix(".npy"): np.load(io.BytesIO(opened.read(name))) for name in names}


def archive(content: bytes) -> GraphArchive:
    """Reads an archive, whose digest nobody has told."""
    return GraphArchive.unpack(content, hashlib.sha256(content).hexdigest(), "an archive")


def test_decoders_are_packed_one_at_a_time(opened: Store, stored: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packing takes a tenth of a second of a core, and four times the memory."""
    packing, most = 0, 0
    lock, pack = threading.Lock(), GraphArchive.pack

    def counted(archive: GraphArchive, compressed: bool = False) -> bytes:
        nonlocal packing, most
        with lock:
            packing += 1
            most = max(most, packing)
        time.sleep(0.01)
        with lock:
            packing -= 1
        return pack(archive, compressed)

    monkeypatch.setattr(GraphArchive, "pack", counted)
    digest = read_header(stored)[0].decoder
    request = pb.GetDecoderRequest(decoder=digest, graphs=["click"])
    unused: Any = None  # by decoders

    async def packed(downloads: Downloads, number: int) -> File:
        call_context.begin("").caller = EVERYBODY
        return await downloads.decoder(request, number)

    async def run() -> None:
        downloads = Downloads(True, unused, opened, None, unused)
        files = await asyncio.gather(*(packed(downloads, number) for number in range(6)))
        assert len({file.etag for file in files}) == 1

    asyncio.run(run())
    assert most == 1
