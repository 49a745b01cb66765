"""Images that left the store, with a real encoder, a real decoder and a folder behind a real store."""

import dataclasses
import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
import redis
from maskwire import Client, ImageNotFound, ServerUnavailable
from maskwire.cli.local_store import store_program
from maskwire.v1 import encoder_pb2_grpc
from numpy.typing import NDArray

from testing.processes import wait_until
from testing.servers import running_server, store_server
from testing.wire import frames, picture

FIRST, SECOND = picture(901), picture(902)
_EMPTY = """
for _, key in ipairs(redis.call('KEYS', '*')) do
    if not string.find(key, 'maskwire:decoder:', 1, true) then redis.call('DEL', key) end
end
"""


@dataclass
class Lab:
    """An encoder, a decoder that keeps nothing in memory, and their store; "first" and "second" are in the folder."""

    raw: redis.Redis
    folder: Path
    client: Client  # embeds images
    other: Client  # has embedded none, so cannot send one again that is missing
    encoder_pid: int
    encoder_log: Path
    first: Path  # the file of the embedding of "first"
    masks: dict[str, NDArray[np.bool_]]

    def lose(self) -> None:
        """Empties the store, but for the exported decoder, which the encoder publishes again within two seconds."""
        self.raw.eval(_EMPTY, 0)

    def failed_moves(self) -> int:
        return self.encoder_log.read_text().count("the cold tier does not follow the store")

    def followed(self) -> bool:
        return not self.raw.exists("maskwire:cold:pending")

    def click(self, image_id: str) -> NDArray[np.bool_]:
        return self.other.segment(image_id, points=[(40, 30)]).mask

    def file(self, image_id: str) -> Path:
        """The file of an image's embedding, which must be in the store."""
        key = self.raw.get(f"maskwire:alias:{{default/{image_id}}}")
        (path,) = self.folder.glob(f"embeddings/=default/*/{key.decode()}")
        return path


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("cold") / "tier"
    cold = ("--cold-tier", str(folder), "--cold-timeout-s", "0.5")
    log = folder.with_name("encoder.log")
    with (
        store_server(store_program()) as url,
        running_server("maskwire_encoder", url, *cold, stderr=log) as (encoder, pid),
        running_server("maskwire_decoder", url, *cold, "--cache-bytes", "0") as (decoder, _),
        redis.Redis.from_url(url) as raw,
        Client(encoder, decoder) as client,
        Client(encoder, decoder, retry_s=0) as other,
    ):
        lab = Lab(raw, folder, client, other, pid, log, Path(), {})
        client.embed(FIRST, "first")
        client.embed(SECOND, "second")
        client.embed(picture(903), "deleted")
        with grpc.insecure_channel(encoder) as channel:
            short = frames(picture(904), 1 << 20, image_id="shortly", ttl_s=3600)
            encoder_pb2_grpc.EncoderServiceStub(channel).EncodeImage(short)
        lab.masks = {name: lab.click(name) for name in ("first", "second")}
        assert (lab.masks["first"] != lab.masks["second"]).any()
        wait_until(lab.followed, 60)
        lab.first = lab.file("first")
        yield lab


def test_a_store_that_was_lost_is_warm_again(lab: Lab) -> None:
    before = lab.client.get("first")
    lab.raw.flushall()
    wait_until(lambda: bool(lab.raw.keys("maskwire:decoder:*")))
    assert dataclasses.replace(lab.client.get("first"), expires_at=before.expires_at) == before
    assert {name: lab.click(name).tobytes() for name in lab.masks} == {
        name: mask.tobytes() for name, mask in lab.masks.items()
    }
    assert lab.client.embed(SECOND, "again").cached
    assert len(lab.raw.keys("maskwire:embedding:*")) == 1  # put back into the store
    with pytest.raises(ImageNotFound):
        lab.click("shortly")  # its caller asked for less time than others have


def test_what_is_deleted_does_not_come_back(lab: Lab) -> None:
    lab.lose()
    lab.click("deleted")
    assert lab.client.delete("deleted", embedding=True)
    for _ in range(2):
        with pytest.raises(ImageNotFound):
            lab.click("deleted")
        lab.lose()
    assert not lab.client.delete("deleted", embedding=True)
    assert not lab.client.embed(picture(903), "anew").cached


def test_a_name_of_another_image(lab: Lab) -> None:
    lab.client.embed(FIRST, "renamed")
    lab.client.embed(SECOND, "renamed")
    lab.raw.delete("maskwire:alias:{default/renamed}")  # before the files have followed
    with pytest.raises(ImageNotFound):
        lab.click("renamed")
    lab.client.embed(SECOND, "renamed")
    wait_until(lab.followed, 60)
    lab.lose()
    assert (lab.click("renamed") == lab.masks["second"]).all()


def test_a_folder_that_is_full_is_filled_later(lab: Lab) -> None:
    wait_until(lab.followed, 60)
    unlimited = resource.prlimit(lab.encoder_pid, resource.RLIMIT_FSIZE)
    resource.prlimit(lab.encoder_pid, resource.RLIMIT_FSIZE, (100_000, unlimited[1]))
    lab.client.embed(picture(905), "late")
    mask = lab.click("late")
    failed = lab.failed_moves()
    wait_until(lambda: lab.failed_moves() >= failed + 2, 60)
    assert not lab.followed()
    assert not list(lab.folder.rglob("*.part"))
    resource.prlimit(lab.encoder_pid, resource.RLIMIT_FSIZE, unlimited)
    wait_until(lab.followed, 60)
    lab.lose()
    assert (lab.click("late") == mask).all()


def test_damaged_files_are_encoded_anew(lab: Lab) -> None:
    wait_until(lab.followed, 60)
    value = lab.first.read_bytes()
    lab.first.write_bytes(value[:-100] + bytes(100))
    lab.lose()
    with pytest.raises(ImageNotFound):
        lab.click("first")
    assert not lab.first.exists()
    assert not lab.client.embed(FIRST, "first").cached
    assert (lab.click("first") == lab.masks["first"]).all()


@pytest.mark.slow  # a thousand encodes take minutes
def test_a_thousand_images_are_read_back_without_an_encode(lab: Lab) -> None:
    names = [f"one of many {number}" for number in range(1000)]
    for number, name in enumerate(names):
        lab.client.embed(np.random.default_rng(number).integers(0, 256, (60, 80, 3), np.uint8), name)
    masks = {name: lab.click(name).tobytes() for name in names}
    assert len(set(masks.values())) > 900
    wait_until(lab.followed, 300)
    lab.lose()
    assert {name: lab.click(name).tobytes() for name in names} == masks
    assert not lab.raw.keys("maskwire:embedding:*")


# The last one: for some seconds nothing is asked of the folder afterwards.
def test_a_folder_that_hangs_is_no_ones_burden_but_of_those_who_need_it(lab: Lab) -> None:
    lab.client.embed(FIRST, "first")
    lab.client.embed(SECOND, "second")
    path = lab.file("second")
    lab.raw.delete(f"maskwire:embedding:{{default/{path.name}}}")
    path.unlink()
    os.mkfifo(path)  # who opens it waits
    for _ in range(4):
        with pytest.raises(ServerUnavailable) as error:
            lab.click("second")
        assert error.value.reason == "COLD_TIER_UNAVAILABLE"
        assert (lab.click("first") == lab.masks["first"]).all()
    assert not lab.client.embed(SECOND, "second").cached  # encoded anew
    assert (lab.click("second") == lab.masks["second"]).all()
    with path.open("wb"):
        pass  # those who waited find it empty
