"""Work of one kind, brought by many threads, is done at once."""

import subprocess
import sys
import threading
import time
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from conftest import Stack, server
from maskwire import Client, Result
from maskwire.automatic_masks import EverythingArguments
from maskwire_decoder.together import Together


def test_everybody_gets_their_own_result_and_batches_fill_up() -> None:
    calls: list[int] = []
    under_way = 0

    def work(kind: Hashable, items: Sequence[int]) -> list[tuple[Hashable, int]]:
        nonlocal under_way
        under_way += 1
        assert under_way == 1
        calls.append(len(items))
        time.sleep(0.002)
        under_way -= 1
        return [(kind, item) for item in items]

    together: Together[int, tuple[Hashable, int]] = Together(work, most=8)
    with ThreadPoolExecutor(32) as threads:
        results = list(threads.map(lambda number: together.run(number % 3, number), range(600)))
    assert results == [(number % 3, number) for number in range(600)]
    assert max(calls) <= 8
    assert len(calls) < 300


def test_an_idle_one_starts_at_once_and_an_error_is_its_batchs_alone() -> None:
    started, go_on = threading.Event(), threading.Event()

    def work(kind: Hashable, items: Sequence[int]) -> Sequence[int]:
        started.set()
        go_on.wait(10)
        if kind == "bad":
            raise ValueError("no such thing")
        return items

    together: Together[int, int] = Together(work, most=8)
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(together.run, "good", 1)
        assert started.wait(10)
        bad = threads.submit(together.run, "bad", 2)
        last = threads.submit(together.run, "good", 3)
        go_on.set()
        assert (first.result(10), last.result(10)) == (1, 3)
        with pytest.raises(ValueError, match="no such thing"):
            bad.result(10)


def test_a_batching_decoder_gives_the_same_masks(stack: Stack, photo: Path, cutout: Path) -> None:
    """Clicks of many callers on two images, refinements and everything mode, against the decoder without batches."""
    random = np.random.default_rng()
    with (
        server("maskwire_decoder", stack.redis_url, "--max-batch-prompts", "8") as address,
        Client(stack.encoder, address) as batching,
        stack.client() as plain,
    ):
        images = [batching.embed(picture) for picture in (photo, cutout)]
        asked: list[tuple[str, list[tuple[float, float]]]] = []
        for number in range(48):
            image = images[number % 2]
            points = random.uniform((0, 0), (image.width, image.height), (1 + number % 3, 2))
            asked.append((image.image_id, [(float(x), float(y)) for x, y in points]))

        def ask(client: Client, one: tuple[str, list[tuple[float, float]]]) -> Result:
            return client.segment(image_id=one[0], points=one[1], outputs=("rle", "logits"), logits_dtype="float32")

        with ThreadPoolExecutor(24) as threads:
            together = list(threads.map(lambda one: ask(batching, one), asked))
        for one, answer in zip(asked, together, strict=True):
            expected = ask(plain, one)
            np.testing.assert_allclose(answer.logits, expected.logits, atol=1e-3)
            again = batching.segment(image_id=one[0], points=one[1], mask=expected.logits, multimask=False)
            assert again.score == pytest.approx(
                plain.segment(image_id=one[0], points=one[1], mask=expected.logits, multimask=False).score, abs=1e-4
            )
        low: EverythingArguments = {"points_per_side": 5, "pred_iou_thresh": 0.05, "stability_score_thresh": 0.3}
        found, reference = (client.everything(photo, **low) for client in (batching, plain))
        assert len(found) == len(reference) >= 3
        for mask, other in zip(found, reference, strict=True):
            assert np.count_nonzero(mask.array != other.array) <= 3


def test_a_decoder_on_a_gpu_that_is_not_there_says_what_to_install(valkey: str) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("ONNX Runtime has CUDA here")
    command = [sys.executable, "-m", "maskwire_decoder", "--decode-device", "cuda", "--redis-url", valkey]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert "onnxruntime-gpu" in ended.stderr
