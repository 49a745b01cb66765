"""The bytes of the codec "klt": integer planes, without loss, read from a store that is not trusted."""

import json
import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from maskwire_core.errors import CorruptValue
from maskwire_core.storage.embedding import MAX_VALUES, Header, pack, read_header, unpack
from maskwire_core.storage.levels import pack_planes, unpack_planes
from numpy.typing import NDArray


def deflated(raw: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflate.compress(raw) + deflate.flush()


def inflated(packed: bytes) -> bytes:
    return zlib.decompress(packed, -zlib.MAX_WBITS)


@given(
    arrays(np.int16, array_shapes(min_dims=3, max_dims=3, max_side=7), elements=st.integers(-32768, 32767)),
    st.sampled_from([1, 1000, 20000]),
)
@settings(deadline=None)
def test_planes_return_as_they_were(planes: NDArray[np.int16], divisor: int) -> None:
    planes //= np.int16(divisor)  # so that all forms occur
    again = unpack_planes(pack_planes(planes), planes.shape)  # type: ignore[arg-type]
    assert again.dtype == np.int16
    np.testing.assert_array_equal(again, planes)


def test_the_layout_is_the_documented_one() -> None:
    """The example of docs/reference/embeddings.md."""
    planes = np.array([[[0, 0], [0, 0]], [[1, -1], [-2, 0]], [[100, 101], [102, 103]]], np.int16)
    expected = bytes([0x00, 0x01, 0x34]) + bytes([0b00_11_01_10]) + bytes([200, 0, 2, 0, 4, 0, 0, 0])
    packed = deflated(expected)
    np.testing.assert_array_equal(unpack_planes(packed, (3, 2, 2)), planes)


def test_smooth_planes_are_predicted() -> None:
    rows, columns = np.mgrid[:32, :32]
    smooth = (rows + columns)[None].astype(np.int16)
    assert inflated(pack_planes(smooth))[0] == 0x31, "left and above: differences of 0, and once of 1, in 2 bits"
    noise = np.random.default_rng(0).integers(-2, 2, (1, 32, 32)).astype(np.int16)
    assert inflated(pack_planes(noise))[0] == 0x01


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        bytes([1, 1, 1]),  # planes are missing
        bytes([1, 1, 1, 0, 0, 0, 0]),  # one byte too many
        bytes([5, 0, 0]),  # no such form
        bytes([0x40, 0, 0]),  # no such predictor
    ],
)
def test_what_no_writer_writes_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="plane"):
        unpack_planes(deflated(raw), (3, 2, 2))


def test_damaged_bytes_are_refused_and_take_no_memory() -> None:
    planes = np.random.default_rng(0).integers(-9, 9, (3, 8, 8)).astype(np.int16)
    packed = pack_planes(planes)
    bomb = deflated(bytes(64 << 20))
    tracemalloc.start()
    try:
        for damaged in (packed[:-1], packed[:5], packed + b"x", b"", b"\xff" * 90, bomb):
            with pytest.raises(ValueError, match="planes"):
                unpack_planes(damaged, (3, 8, 8))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def embedding() -> tuple[Header, dict[str, NDArray[np.int16]]]:
    random = np.random.default_rng(1)
    planes = {"image_embed": random.integers(-200, 200, (5, 8, 8)), "high_res_0": random.integers(-1, 2, (9, 8, 8))}
    header = Header("tenant", "k" * 64, "demo", "f" * 64, "d" * 64, 480, 640, "klt", 1.5)
    return header, {name: each.astype(np.int16) for name, each in planes.items()}


def test_an_embedding_of_planes_is_packed_and_checked() -> None:
    header, planes = embedding()
    value = pack(header, planes)
    again = unpack(value)
    for name, each in planes.items():
        np.testing.assert_array_equal(again.tensors[name], each)
    for position in range(read_header(value)[1], len(value) - 64, 7):
        damaged = bytearray(value)
        damaged[position] ^= 1
        with pytest.raises(CorruptValue):
            unpack(bytes(damaged))


def rewritten(value: bytes, tensors: dict[str, Any]) -> bytes:
    """The stored value with other tensors in its header, and the right checksum."""
    prefix = struct.Struct("<8sIIQ")
    magic, version, length, _ = prefix.unpack_from(value)
    members = json.loads(value[prefix.size : prefix.size + length])
    text = json.dumps(members | {"tensors": tensors}).encode()
    head = prefix.pack(magic, version, len(text), xxhash.xxh3_64_intdigest(text)) + text
    return head + bytes(-len(head) % 64) + value[-members["payload_bytes"] :]


@pytest.mark.parametrize("shape", [[5, 8, 9], [5, 64], [1, MAX_VALUES // 2, 2], [MAX_VALUES + 1, 1, 1], [4, 8, 8]])
def test_an_embedding_of_planes_that_lies_about_its_shape_is_refused(shape: list[int]) -> None:
    header, planes = embedding()
    value = pack(header, planes)
    described = read_header(value)[0].tensors
    lying = described | {"image_embed": described["image_embed"] | {"shape": shape}}
    tracemalloc.start()
    try:
        with pytest.raises(CorruptValue):
            unpack(rewritten(value, lying))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
