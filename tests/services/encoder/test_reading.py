"""Reading within the pipeline: who waits for whom, and what ends when callers leave."""

import asyncio
import struct
from collections.abc import Iterator
from typing import Any, cast

import pytest
import torch
from maskwire_core.config import EncoderSettings
from maskwire_core.errors import InvalidArgument
from maskwire_core.scheduling.fair_queue import Requester
from maskwire_core.scheduling.scheduler import Demand
from maskwire_encoder.pipeline import Pipeline
from maskwire_encoder.reading_jobs import Pixels
from maskwire_encoder.spool import ImageFile
from PIL import Image

from testing.picture_files import by_pillow, slow_bmp


class _Model:
    largest, device = 1, torch.device("cpu")

    def prepare(self, rgb: Any) -> torch.Tensor:
        return torch.zeros(1)


MODEL: Any = _Model()
PNG = by_pillow(Image.new("RGB", (60, 40)), "PNG")


@pytest.fixture(scope="module")
def pipeline() -> Iterator[Pipeline]:
    one = Pipeline(EncoderSettings(readers=1, decode_bytes=1 << 30), [cast(Any, MODEL)])
    yield one
    one.close()


async def read(pipeline: Pipeline, data: bytes, who: str) -> Pixels:
    demand = Demand(Requester(who, who))
    return (await pipeline.read(MODEL, ImageFile.of(data), "auto", False, demand)).result


def test_others_do_not_wait_for_slow_files_which_end_when_their_callers_leave(pipeline: Pipeline) -> None:
    async def scenario() -> None:
        files = [slow_bmp(2600), slow_bmp(2601), slow_bmp(2602)]
        slow = [asyncio.create_task(read(pipeline, file, "attacker")) for file in files]
        for _ in range(3):
            async with asyncio.timeout(20):
                assert (await read(pipeline, PNG, "another")).width == 60
        assert not any(task.done() for task in slow)
        for task in slow:
            task.cancel()
        async with asyncio.timeout(5):
            while pipeline.waiting:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    asyncio.run(scenario())


def test_a_file_that_may_take_too_much_memory_is_refused_before_it_is_decoded(pipeline: Pipeline) -> None:
    data = PNG[:16] + struct.pack(">IIBB", 9000, 9000, 16, 6) + PNG[26:]
    with pytest.raises(InvalidArgument) as caught:
        asyncio.run(read(pipeline, data, "one"))
    assert caught.value.reason == "IMAGE_TOO_LARGE"
    assert "--decode-bytes" in caught.value.message


def test_warnings_come_with_the_picture(pipeline: Pipeline) -> None:
    damaged = by_pillow(Image.new("RGB", (60, 40)), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0")
    found = asyncio.run(read(pipeline, damaged, "one"))
    assert any("EXIF" in warning for warning in found.warnings)
