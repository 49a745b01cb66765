"""The stored form of an embedding."""

import json
import struct
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from maskwire_core.errors import CorruptValue
from maskwire_core.storage.codecs import NotFinite, is_finite
from maskwire_core.storage.embedding import Header, Region, content_key, pack, read_header, unpack
from numpy.typing import NDArray

TENSORS = {
    "image_embed": np.random.default_rng(0).standard_normal((9, 8)).astype(np.float32),
    "high_res_1": np.random.default_rng(1).standard_normal((9, 4, 2)).astype(np.float32),
}


def header(codec: str = "fp16") -> Header:
    return Header("tenant", "k" * 64, "demo", "f" * 64, "d" * 64, 480, 640, codec, 1.5)


STEPS = {"fp32": 0, "fp16": 2**-11, "int8": 1 / 127 / 2, "int4": 1 / 15 + 2**-9}
"""Largest error of each codec, relative to the largest value; int4 rounds its scales to fp16, too."""


@pytest.mark.parametrize("codec", STEPS)
@given(st.integers(0, 2**32), st.floats(1e-3, 1e4))
def test_every_codec_keeps_its_precision(codec: str, seed: int, size: float) -> None:
    random = np.random.default_rng(seed)
    tensors = {
        "image_embed": (random.standard_normal((9, 64)) * size).astype(np.float32),
        "high_res_0": (random.standard_normal((9, 16, 32)) * size).astype(np.float32),
        "zero": np.zeros((4, 32), np.float32),
    }
    embedding = unpack(pack(header(codec), tensors))
    for name, tensor in tensors.items():
        assert embedding.tensors[name].dtype == (np.float16 if codec == "fp16" else np.float32)
        bound = np.abs(tensor).max() * STEPS[codec] * 1.01
        np.testing.assert_allclose(embedding.tensors[name], tensor, atol=bound + 1e-7, rtol=0)


def test_sizes_of_the_codecs() -> None:
    tensors = {"image_embed": np.ones((256, 256), np.float32)}
    sizes = {
        codec: len(pack(header(codec), tensors)) - 262_144 * factor
        for codec, factor in (("fp32", 1), ("fp16", 1 / 2), ("int8", 1 / 4), ("int4", 6 / 32))
    }
    assert all(0 < extra < 3000 for extra in sizes.values())


@pytest.mark.parametrize("codec", ["fp16", "fp32"])
def test_round_trip(codec: str) -> None:
    embedding = unpack(pack(header(codec), TENSORS))
    assert (embedding.header.height, embedding.header.width, embedding.header.codec) == (480, 640, codec)
    for name, tensor in TENSORS.items():
        rounded = tensor.astype(np.float16 if codec == "fp16" else np.float32)
        np.testing.assert_array_equal(embedding.tensors[name], rounded.astype(np.float32))
        assert embedding.tensors[name].shape == tensor.shape


@pytest.mark.parametrize("codec", ["fp32", "fp16", "int8", "int4"])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_packed(codec: str, value: float) -> None:
    tensor = np.ones((256, 8), np.float32)
    tensor[77, 3] = value
    with pytest.raises(NotFinite, match="image_embed has 1 values that are NaN or infinite"):
        pack(header(codec), {"image_embed": tensor})


@pytest.mark.parametrize("value", [1e6, -1e6])
def test_values_beyond_fp16_are_refused_where_it_is_the_codec(value: float) -> None:
    assert unpack(pack(header(), {"image_embed": np.full((2, 2), 65504, np.float32)}))
    tensors = {"image_embed": np.full((2, 2), value, np.float32)}
    assert unpack(pack(header("fp32"), tensors)).tensors["image_embed"].max() == value
    for codec in ("fp16", "int4"):
        with pytest.raises(NotFinite, match=f"values of up to 1e.06, more than {codec} holds"):
            pack(header(codec), tensors)


@given(arrays(st.sampled_from(["f2", "f4", "f8"]), st.integers(0, 9), elements=None))
def test_bits_tell_what_is_finite(array: NDArray[Any]) -> None:
    assert is_finite(array) == bool(np.isfinite(array).all())


@given(st.data())
def test_any_damage_is_noticed(data: st.DataObject) -> None:
    value = bytearray(pack(header(), TENSORS))
    written, start = read_header(bytes(value))
    # Only the zeros between header and tensors, and behind the last tensor, carry nothing.
    used = [*range(24 + int.from_bytes(value[12:16], "little")), *range(start, start + written.payload_bytes)]
    if data.draw(st.booleans()):
        position = data.draw(st.sampled_from(used))
        value[position] ^= data.draw(st.integers(1, 255))
    else:
        del value[data.draw(st.integers(0, len(value) - 1)) :]
    with pytest.raises(CorruptValue):
        unpack(bytes(value))


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_no_embedding(value: bytes) -> None:
    with pytest.raises(CorruptValue):
        unpack(value)
    with pytest.raises(CorruptValue):
        unpack(b"MASKWIRE\1\0\0\0" + value)


def test_readers_know_what_older_writers_left_out_and_not_what_newer_ones_add() -> None:
    """The order of an upgrade (docs/how-to/deploy.md) follows from this: readers first."""
    value = pack(header(), TENSORS)
    prefix = struct.Struct("<8sIIQ")
    magic, version, length, _ = prefix.unpack_from(value)
    members = json.loads(value[prefix.size : prefix.size + length])
    payload = value[-members["payload_bytes"] :]

    def written(members: dict[str, Any], version: int = version) -> bytes:
        text = json.dumps(members).encode()
        head = prefix.pack(magic, version, len(text), xxhash.xxh3_64_intdigest(text)) + text
        return head + bytes(-len(head) % 64) + payload

    older = {name: member for name, member in members.items() if name != "stretch"}
    assert unpack(written(older)).header == unpack(value).header
    for newer in (members | {"colours": "srgb"}, members | {"codec": "int2"}, members | {"layout": "tokens/2"}):
        with pytest.raises(CorruptValue):
            unpack(written(newer))
    for other in (version - 1, version + 1):
        with pytest.raises(CorruptValue):
            unpack(written(members, other))


def test_a_region_knows_its_image() -> None:
    region = Region("w" * 64, 100, 50, 4000, 3000)
    value = pack(replace(header(), region=region), TENSORS)
    read = unpack(value).header
    assert read.region == region
    assert read.size == (4000, 3000, (100, 50, 640, 480))
    assert header().size == (640, 480, None)
    assert b"region" not in bytes(pack(header(), TENSORS))  # versions that know no regions read images
    described = {"image": "w" * 64, "x": 100, "y": 50, "image_width": 4000, "image_height": 3000}
    for wrong in ({"x": 3361}, {"y": -1}, {"image_width": True}, {"image_height": 529}, {"image": 7}, {"z": 1}):
        with pytest.raises(CorruptValue):
            read_header(rewritten(value, region=described | wrong))
    for other in (None, [], "all", {"image": "w" * 64}):
        with pytest.raises(CorruptValue):
            read_header(rewritten(value, region=other))


def test_content_key_depends_on_everything_that_was_done() -> None:
    parts = (b"i" * 32, "fingerprint", "decoder", "sam2/1", "fp16")
    changed = [(b"j" * 32, *parts[1:])]
    changed += [(*parts[:index], "other", *parts[index + 1 :]) for index in range(1, 5)]
    changed += [(*parts, "w 0 0 9 9"), (*parts, "w 1 0 9 9")]
    assert len({content_key(*each) for each in (parts, *changed)}) == 8
    assert content_key(*parts) == content_key(*parts)


def rewritten(value: bytes, **members: Any) -> bytes:
    """The stored value with other members in its header, and the right checksum."""
    prefix = struct.Struct("<8sIIQ")
    magic, version, length, _ = prefix.unpack_from(value)
    written = json.loads(value[prefix.size : prefix.size + length])
    payload = value[-written["payload_bytes"] :]
    text = json.dumps(written | members).encode()
    head = prefix.pack(magic, version, len(text), xxhash.xxh3_64_intdigest(text)) + text
    return head + bytes(-len(head) % 64) + payload


@pytest.mark.parametrize("codec", ["fp32", "fp16", "int8", "int4"])
def test_tensors_that_lie_about_their_size_are_refused_before_memory_is_taken(codec: str) -> None:
    tensor = np.random.default_rng(0).standard_normal((256, 64)).astype(np.float32)
    value = pack(header(codec), {"image_embed": tensor, "high_res_1": tensor})
    described = read_header(value)[0].tensors
    one = described["image_embed"]
    lies: list[dict[str, Any]] = [
        {"shape": [1 << 30, 64]},
        {"shape": [256, 1 << 30]},
        {"shape": [-256, -64]},
        {"shape": [256.0, 64]},
        {"shape": [True, 64 * 256]},
        {"shape": []},
        {"shape": None},
        {"parts": {}},
        {"parts": {part: [dtype, 0, nbytes + 64] for part, (dtype, _, nbytes) in one["parts"].items()}},
        {"parts": {part: [dtype, -64, nbytes] for part, (dtype, _, nbytes) in one["parts"].items()}},
        {"parts": {part: ["|V4096", offset, nbytes] for part, (_, offset, nbytes) in one["parts"].items()}},
    ]
    tracemalloc.start()
    try:
        for lie in lies:
            with pytest.raises(CorruptValue):
                unpack(rewritten(value, tensors=described | {"image_embed": one | lie}))
        many = {f"tensor {number}": one for number in range(40)}  # all of the same bytes
        with pytest.raises(CorruptValue):
            unpack(rewritten(value, tensors=many))
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()
    assert unpack(rewritten(value)).tensors["image_embed"].shape == (256, 64)


@pytest.mark.parametrize(
    "members",
    [
        {"height": 1 << 40},
        {"height": 0},
        {"width": -5},
        {"width": "600"},
        {"height": 480.5},
        {"height": True},
        {"model": ["demo"]},
        {"created_at": "now"},
        {"tensors": [1]},
        {"model": "m" * 9000},
        {"payload_bytes": None},
    ],
)
def test_headers_with_impossible_values_are_refused(members: dict[str, Any]) -> None:
    with pytest.raises(CorruptValue):
        read_header(rewritten(pack(header(), TENSORS), **members))


def test_a_header_that_is_nested_too_deeply_is_refused() -> None:
    text = b"[" * 8000
    head = struct.pack("<8sIIQ", b"MASKWIRE", 2, len(text), xxhash.xxh3_64_intdigest(text))
    with pytest.raises(CorruptValue):
        read_header(head + text)
