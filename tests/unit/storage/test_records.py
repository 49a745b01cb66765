"""What the store keeps, over the in-memory twin here and over real stores in tests/services."""

import dataclasses
import hashlib
import io
import zipfile

import numpy as np
import pytest
import redis
from maskwire_core.errors import CorruptValue
from maskwire_core.models.decoder_bundle import GRAPHS, DecoderBundle, DecoderConfig
from maskwire_core.models.graph_archive import OnnxGraph
from maskwire_core.models.tracker_bundle import GRAPHS as TRACKER_GRAPHS
from maskwire_core.models.tracker_bundle import TrackerBundle, TrackerConfig
from maskwire_core.storage.embedding import Header, Region, pack
from maskwire_core.storage.exports import get_decoder, get_tracker, publish_decoder, publish_tracker
from maskwire_core.storage.inventory import Inventory
from maskwire_core.storage.quotas import Quotas
from maskwire_core.storage.store import Store

KEY = "a" * 64


TENSORS = {"image_embed": np.arange(12, dtype=np.float32)}


HEADER = Header("default", KEY, "demo", "f", "d", 10, 20, "fp16", 0)


BUNDLE = DecoderBundle(
    DecoderConfig("demo", "f", 512, 128, True, 0.05, 0.98),
    {name: OnnxGraph(name.encode(), ("weight",)) for name in GRAPHS},
    {"weight": np.ones((1, 4), np.float32)},
)


def test_embedding_round_trip(store: Store) -> None:
    value = pack(HEADER, TENSORS)
    assert store.get_embedding("default", KEY) is None
    assert store.find_embedding("default", KEY) is None
    store.put_embedding("default", KEY, value, ttl_s=100)
    embedding = store.get_embedding("default", KEY)
    assert embedding is not None
    assert embedding.tensors["image_embed"].tolist() == list(range(12))
    found = store.find_embedding("default", KEY)
    assert found is not None
    header, size, ttl_ms = found
    assert header == embedding.header
    assert size == len(value)
    assert 90_000 < ttl_ms <= 100_000
    store.touch_embedding("default", KEY, ttl_s=500)
    assert store.find_embedding("default", KEY)[2] > 400_000  # type: ignore[index]
    store.delete_embedding("default", KEY)
    assert store.get_embedding("default", KEY) is None


def test_names_are_repointed_and_kept_apart_by_namespace(store: Store) -> None:
    store.set_alias("a", "photo", "1" * 64, 100)
    store.set_alias("a", "photo", "2" * 64, 100)
    assert store.get_alias("a", "photo") == "2" * 64
    assert store.get_alias("b", "photo") is None
    assert store.delete_alias("a", "photo")
    assert not store.delete_alias("a", "photo")


def test_attempts_of_one_deletion_say_the_same(store: Store) -> None:
    assert not store.delete_alias("a", "photo", "first")
    for _ in range(2):
        store.set_alias("a", "photo", KEY, 100)
        assert store.delete_alias("a", "photo", "second")
        assert store.delete_alias("a", "photo", "second")
        assert not store.delete_alias("a", "photo", "third")
        assert not store.delete_alias("a", "photo")


def test_an_embedding_under_a_foreign_key_is_a_miss(store: Store) -> None:
    store.put_embedding("thief", KEY, pack(HEADER, TENSORS), 100)
    assert store.get_embedding("thief", KEY) is None
    other = dataclasses.replace(HEADER, content_key="b" * 64)
    store.put_embedding("default", KEY, pack(other, TENSORS), 100)
    assert store.find_embedding("default", KEY) is None


@pytest.mark.parametrize("damage", ["truncated", "flipped", "text", "hash"])
def test_damaged_values_are_deleted_misses(store: Store, raw: redis.Redis, damage: str) -> None:
    name = f"maskwire:embedding:{{default/{KEY}}}"
    value = bytearray(pack(HEADER, TENSORS))
    if damage == "truncated":
        raw.set(name, bytes(value[:-10]))
    elif damage == "flipped":
        value[-40] ^= 1
        raw.set(name, bytes(value))
    elif damage == "text":
        raw.set(name, "no embedding")
    else:
        raw.hset(name, "field", "value")
    if damage != "flipped":  # the look-up reads no tensors
        assert store.find_embedding("default", KEY) is None
    assert store.get_embedding("default", KEY) is None
    assert not raw.exists(name)
    assert store.corrupt_values == 1


def test_decoder_round_trip(store: Store, raw: redis.Redis) -> None:
    assert get_decoder(store, BUNDLE.digest) is None
    publish_decoder(store, BUNDLE)
    loaded = get_decoder(store, BUNDLE.digest)
    assert loaded is not None
    assert loaded.packed == BUNDLE.packed
    raw.set(f"maskwire:decoder:{BUNDLE.digest}", BUNDLE.packed[:-1])
    assert get_decoder(store, BUNDLE.digest) is None
    assert get_decoder(store, "../x") is None


def test_tracker_round_trip(store: Store, raw: redis.Redis) -> None:
    config = TrackerConfig(BUNDLE.config, 7, 64, 16, True, False, True, True, 0, 1, True, (0.5, -1.0))
    graphs = {name: OnnxGraph(name.encode(), ("weight",)) for name in TRACKER_GRAPHS}
    bundle = TrackerBundle(config, graphs, BUNDLE.weights)
    assert get_tracker(store, bundle.digest) is None
    publish_tracker(store, bundle)
    loaded = get_tracker(store, bundle.digest)
    assert loaded is not None
    assert (loaded.packed, loaded.config) == (bundle.packed, config)
    raw.set(f"maskwire:tracker:{bundle.digest}", bundle.packed[:-1])
    assert get_tracker(store, bundle.digest) is None


def test_an_exported_decoder_is_not_unpacked_to_more_than_it_has() -> None:
    made = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(BUNDLE.packed)) as written,
        zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name in written.namelist():
            archive.writestr(name, written.read(name))
        archive.writestr("zeros", bytes(1 << 24))
    packed = made.getvalue()
    assert len(packed) < 1 << 16
    with pytest.raises(CorruptValue, match="is compressed"):
        DecoderBundle.unpack(packed, hashlib.sha256(packed).hexdigest())


def test_an_array_that_lies_about_its_shape_takes_no_memory() -> None:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)})
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(BUNDLE.packed)) as written, zipfile.ZipFile(made, "w") as archive:
        for name in written.namelist():
            archive.writestr(name, file.getvalue() if name == "weight.npy" else written.read(name))
    packed = made.getvalue()
    with pytest.raises(CorruptValue, match="do not fit its shape"):
        DecoderBundle.unpack(packed, hashlib.sha256(packed).hexdigest())


def test_regions_go_with_their_image(store: Store, raw: redis.Redis) -> None:
    part = dataclasses.replace(HEADER, content_key="b" * 64, region=Region(KEY, 5, 5, 100, 100))
    quotas = Quotas(store)

    def put(header: Header) -> None:
        quotas.put_embedding("default", header.content_key, pack(header, TENSORS), 100, quota_bytes=1 << 20)

    assert not store.enter_region("default", KEY, part.content_key, 100)  # there is no such image
    put(HEADER)
    put(part)
    assert store.find_embedding("default", part.content_key) is None  # nor is the region its image's
    assert store.enter_region("default", KEY, part.content_key, 100)
    put(part)
    assert store.get_embedding("default", part.content_key) is not None
    assert store.get_embedding_value("default", part.content_key) is not None
    assert store.find_embedding("default", part.content_key) is not None
    store.set_alias("default", "photo", KEY, 100)
    assert not Inventory(store).select(unreferenced=True)
    store.delete_alias("default", "photo")
    assert len(Inventory(store).select(unreferenced=True)) == 2
    quotas.erase_embedding("default", KEY)
    assert raw.keys("maskwire:[^d]*") == [b"maskwire:sizes:{default}"]
    assert raw.hgetall("maskwire:sizes:{default}") == {b"total": b"0"}
    assert len(raw.xrange("maskwire:deletions")) == 2  # decoders are told of both
