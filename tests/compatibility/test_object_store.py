"""A cold tier in a bucket, through s3fs: a server that speaks S3 (moto) behind a proxy, a real encoder and decoder."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import redis
from maskwire import Client, ServerUnavailable
from maskwire.cli.free_ports import free_port
from numpy.typing import NDArray

from testing.foreign_programs import installed
from testing.processes import running, wait_until
from testing.servers import running_server
from testing.wire import picture
from tests.faults.proxy import Proxy

BUCKET = "embeddings"

pytestmark = pytest.mark.compatibility


@dataclass
class Lab:
    """The servers; the decoder keeps nothing in memory, and `other` has no pictures to embed again."""

    raw: redis.Redis
    bucket: Proxy
    client: Client
    other: Client

    def lose(self, image_id: str) -> None:
        """Takes an image, which must be in the bucket, out of the store."""
        wait_until(lambda: not self.raw.exists("maskwire:cold:pending"), 60)
        key = self.raw.get(f"maskwire:alias:{{default/{image_id}}}")
        assert isinstance(key, bytes)
        self.raw.delete(f"maskwire:alias:{{default/{image_id}}}", f"maskwire:embedding:{{default/{key.decode()}}}")

    def click(self, image_id: str) -> NDArray[np.bool_]:
        return self.other.segment(image_id, points=[(40, 30)]).mask


@pytest.fixture(scope="module")
def lab(valkey: str) -> Iterator[Lab]:
    moto, s3fs = installed("moto[server]==5.2.5"), installed("s3fs==2026.9.0")
    (packages,) = s3fs.parent.glob("lib/python*/site-packages")
    port = free_port()
    cold = ("--cold-tier", f"s3://{BUCKET}/maskwire", "--cold-timeout-s", "1")
    with (
        running([str(moto / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]) as server,
        Proxy(port).running() as bucket,
        pytest.MonkeyPatch.context() as environment,
        redis.Redis.from_url(valkey) as raw,
    ):
        address = f"http://{bucket.address}"
        environment.setenv("FSSPEC_S3_ENDPOINT_URL", address)
        environment.setenv("AWS_ACCESS_KEY_ID", "id")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
        environment.setenv("PYTHONPATH", str(packages))
        make = f"import s3fs; s3fs.S3FileSystem().mkdir({BUCKET!r})"
        wait_until(lambda: _succeeds(s3fs / "python", make), process=server)
        with (
            running_server("maskwire_encoder", valkey, *cold, cold=True) as (encoder, _),
            running_server("maskwire_decoder", valkey, *cold, "--cache-bytes", "0", cold=True) as (decoder, _),
            Client(encoder, decoder) as client,
            Client(encoder, decoder, retry_s=0) as other,
        ):
            for number, image_id in enumerate(("first", "second")):
                client.embed(picture(910 + number), image_id)
            yield Lab(raw, bucket, client, other)


def _succeeds(python: Path, code: str) -> bool:
    with running([str(python), "-c", code]) as process:
        return process.wait(60) == 0


def test_images_are_read_back(lab: Lab) -> None:
    mask = lab.click("first")
    described = lab.client.get("first")
    lab.lose("first")
    assert lab.client.get("first").content_key == described.content_key
    assert (lab.click("first") == mask).all()
    assert lab.client.embed(picture(910), "first").cached


def test_a_slow_line_is_waited_for_as_long_as_said(lab: Lab) -> None:
    mask, warm = lab.click("second"), lab.click("first")
    lab.lose("second")
    lab.bucket.bytes_per_s = 100_000  # the embedding has megabytes
    with pytest.raises(ServerUnavailable) as error:
        lab.click("second")
    assert error.value.reason == "COLD_TIER_UNAVAILABLE"
    assert (lab.click("first") == warm).all()
    lab.bucket.bytes_per_s = 0
    wait_until(lambda: _reads(lab, "second", mask), 30)


def test_a_line_that_is_cut(lab: Lab) -> None:
    lab.client.embed(picture(911), "second")
    mask, warm = lab.click("second"), lab.click("first")
    lab.lose("second")
    lab.bucket.silent = True
    for _ in range(4):
        with pytest.raises(ServerUnavailable):
            lab.click("second")
        assert (lab.click("first") == warm).all()
    lab.bucket.silent = False
    lab.bucket.cut()
    time.sleep(5)  # until the bucket is asked again
    wait_until(lambda: _reads(lab, "second", mask), 30)


def test_what_is_deleted_leaves_the_bucket(lab: Lab) -> None:
    lab.client.embed(picture(911), "second")
    lab.lose("second")
    assert lab.client.delete("second", embedding=True)
    assert not lab.client.embed(picture(911), "second").cached


def _reads(lab: Lab, image_id: str, mask: NDArray[np.bool_]) -> bool:
    try:
        return bool((lab.click(image_id) == mask).all())
    except ServerUnavailable:
        return False
