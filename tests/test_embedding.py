"""The stored form of an embedding."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from maskwire_core.embedding import Header, pack, read_header, unpack
from maskwire_core.errors import CorruptValue
from maskwire_core.store import content_key

TENSORS = {
    "image_embed": np.random.default_rng(0).standard_normal((9, 8)).astype(np.float32),
    "high_res_1": np.random.default_rng(1).standard_normal((9, 4, 2)).astype(np.float32),
}


def header(codec: str = "fp16") -> Header:
    return Header("tenant", "k" * 64, "demo", "f" * 64, "d" * 64, 480, 640, codec, 1.5)


@pytest.mark.parametrize("codec", ["fp16", "fp32"])
def test_round_trip(codec: str) -> None:
    embedding = unpack(pack(header(codec), TENSORS))
    assert (embedding.header.height, embedding.header.width, embedding.header.codec) == (480, 640, codec)
    for name, tensor in TENSORS.items():
        np.testing.assert_array_equal(embedding.tensors[name], tensor.astype(embedding.tensors[name].dtype))
        assert embedding.tensors[name].shape == tensor.shape


def test_values_beyond_fp16_become_its_largest() -> None:
    embedding = unpack(pack(header(), {"image_embed": np.array([1e6, -1e6, 1], np.float32)}))
    assert embedding.tensors["image_embed"].tolist() == [65504, -65504, 1]


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


def test_content_key_depends_on_everything_that_was_done() -> None:
    parts = (b"i" * 32, "fingerprint", "decoder", "sam2/1", "fp16")
    changed = [(b"j" * 32, *parts[1:])]
    changed += [(*parts[:index], "other", *parts[index + 1 :]) for index in range(1, 5)]
    assert len({content_key(*each) for each in (parts, *changed)}) == 6
    assert content_key(*parts) == content_key(*parts)
