"""Objects as lists of steps: folding, digests, the cache of predictions, and what a decoder makes of them."""

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from maskwire.v1 import decoder_pb2, decoder_pb2_grpc, encoder_pb2_grpc
from maskwire.v1 import types_pb2 as pb
from maskwire_core.errors import InvalidArgument
from maskwire_decoder.prefix_cache import PrefixCache
from maskwire_decoder.prompts.encoding import Prediction
from maskwire_decoder.prompts.geometry import ImageSize
from maskwire_decoder.prompts.steps import StepList, parse_steps
from numpy.typing import NDArray

from testing.processes import resident_bytes
from testing.reference.predictor import Reference, build_demo, over_white
from testing.servers import EXACT, running_server, server
from testing.wire import frames

CLICKS = [(260, 130, 1), (300, 330, 0), (400, 150, 1), (180, 120, 1), (90, 90, 0)]
BOX: Any = {"x_min_px": 135, "y_min_px": 40, "x_max_px": 500, "y_max_px": 345}


def added(x: float, y: float, label: int = 1, **fields: Any) -> pb.Step:
    return pb.Step(add_point=pb.Point(x_px=x, y_px=y, label=label), **fields)


def folded(*steps: pb.Step) -> StepList:
    return parse_steps(steps, "steps", ImageSize(600, 400), 256)


# Folding


def test_what_is_fed_back_and_how_many_candidates_there_are() -> None:
    history = folded(
        added(1, 1),  # a lone click has three candidates
        added(2, 2, 0),  # refines
        pb.Step(set_box=BOX),
        pb.Step(set_box=BOX),  # replaces a box
        pb.Step(remove_point=0),
        added(3, 3),
        added(4, 4, refine=False, multimask=True),
        pb.Step(clear={}),
        added(5, 5, refine=True),  # nothing to refine
    )
    assert [step.refine for step in history.steps] == [False, True, True, False, False, True, False, False, False]
    assert [step.multimask for step in history.steps] == [True, *[False] * 5, True, False, True]
    assert not folded(pb.Step(set_box=BOX)).last.multimask
    shapes = [(shape.points.tolist(), shape.box) for _, shape in history.shapes(range(4, 9))]
    assert shapes[0] == ([[2, 2]], (135, 40, 500, 345))
    assert shapes[2][0] == [[2, 2], [3, 3], [4, 4]]
    assert shapes[3:] == [([], None), ([[5, 5]], None)]


def test_only_steps_since_the_last_one_that_feeds_nothing_back_are_needed() -> None:
    clicks = [added(x, x) for x in range(1, 6)]
    assert list(folded(*clicks).predecessors()) == [3, 2, 1, 0]
    assert list(folded(*clicks, pb.Step(remove_point=1), added(9, 9)).predecessors()) == [5]
    assert list(folded(*clicks, added(9, 9, refine=False)).predecessors()) == []


def test_equal_lists_have_equal_digests_and_others_do_not() -> None:
    first = added(1, 1)
    lists = [
        [first],
        [added(1, 2)],
        [added(1, 1, 0)],
        [added(1, 1, multimask=False)],
        [pb.Step(set_box=BOX)],
        [first, added(2, 2)],
        [first, added(2, 2, refine=False)],
        [added(2, 2), first],
        [first, added(2, 2), pb.Step(remove_point=1)],
    ]
    digests = [folded(*steps).last.digest for steps in lists]
    assert len(set(digests)) == len(digests)
    # What is the default, what came before a clear, and what comes after make no difference.
    assert folded(added(1, 1, multimask=True)).last.digest == digests[0]
    assert folded(pb.Step(add_point=pb.Point(x_px=1, y_px=1))).last.digest == digests[0]
    assert folded(added(7, 7), pb.Step(clear={}), first).last.digest == digests[0]
    assert folded(*lists[5]).steps[0].digest == digests[0]


@given(st.lists(st.sampled_from(["add", "remove", "box", "clear"]), min_size=1, max_size=30), st.randoms())
@settings(max_examples=200, deadline=None)
def test_any_steps_fold_to_what_they_add_up_to_or_say_what_is_wrong(kinds: list[str], random: Any) -> None:
    points: list[list[float]] = []
    box, steps, wrong = None, [], None
    for index, kind in enumerate(kinds):
        if kind == "add":
            points.append([random.randrange(600), random.randrange(400)])
            steps.append(added(*points[-1]))
        elif kind == "remove":
            place = random.randrange(4)
            steps.append(pb.Step(remove_point=place))
            if place >= len(points):
                wrong = f"steps[{index}].remove_point"
                break
            del points[place]
        elif kind == "box":
            box = [0, 0, random.randrange(1, 600), random.randrange(1, 400)]
            steps.append(pb.Step(set_box=dict(zip(BOX, box, strict=True))))
        else:
            points, box = [], None
            steps.append(pb.Step(clear={}))
    if wrong is None and not points and box is None:
        wrong = "steps"
    if wrong is not None:
        with pytest.raises(InvalidArgument) as caught:
            folded(*steps)
        assert caught.value.field == wrong
        return
    history = folded(*steps)
    ((_, shape),) = history.shapes(range(len(steps) - 1, len(steps)))
    assert shape == history.shape
    assert shape.points.tolist() == points
    assert (None if shape.box is None else list(shape.box)) == box


# The cache


def prediction(candidates: int = 1, side: int = 16) -> Prediction:
    return Prediction(np.ones((candidates, side, side), np.float32), np.ones(candidates, np.float32), 1.0)


def test_the_least_recently_used_prediction_leaves_and_the_bytes_are_right() -> None:
    cache = PrefixCache(1 << 20)
    for index in range(3):
        cache.put(("a", "b", bytes([index])), prediction())
    each = cache.nbytes // 3
    cache = PrefixCache(2 * each)
    for index in range(2):
        cache.put(("a", "b", bytes([index])), prediction())
    assert cache.get(("a", "b", b"\0")) is not None
    cache.put(("a", "b", b"\2"), prediction())
    assert [cache.get(("a", "b", bytes([index]))) is None for index in range(3)] == [False, True, False]
    assert cache.nbytes == 2 * each
    assert cache.get(("other", "b", b"\0")) is None
    cache.put(("a", "b", b"\3"), prediction(side=64))  # larger than all of it
    assert cache.get(("a", "b", b"\3")) is None
    assert cache.nbytes == 0


def test_a_prediction_with_more_candidates_replaces_one_with_fewer() -> None:
    cache, key = PrefixCache(1 << 20), ("a", "b", b"c")
    cache.put(key, prediction(3))
    full = cache.nbytes
    cache.put(key, prediction(1))
    kept = cache.get(key)
    assert kept is not None
    assert (len(kept.iou), cache.nbytes) == (3, full)
    view = Prediction(np.ones((2, 16, 16), np.float32)[:1], np.ones(1, np.float32), 1.0)
    cache.put(("a", "b", b"d"), view)
    kept = cache.get(("a", "b", b"d"))
    assert kept is not None
    assert kept.logits.base is None  # or it would keep twice its own bytes


# On the wire


@pytest.fixture(scope="module")
def exact(valkey: str, photo: Path) -> Iterator[tuple[str, str]]:
    """Addresses of an encoder that stores fp32 and has embedded the photograph as "cup", and of a decoder."""
    with server("maskwire_encoder", valkey, *EXACT) as encoder, server("maskwire_decoder", valkey) as decoder:
        embed(encoder, photo)
        yield encoder, decoder


def embed(encoder: str, photo: Path, image_id: str = "cup") -> None:
    with grpc.insecure_channel(encoder) as channel:
        encoder_pb2_grpc.EncoderServiceStub(channel).EncodeImage(frames(photo.read_bytes(), 1 << 20, image_id=image_id))


def asked(steps: list[pb.Step], **fields: Any) -> decoder_pb2.SegmentRequest:
    output = pb.OutputOptions(
        formats=[pb.MASK_FORMAT_LOGITS, pb.MASK_FORMAT_RLE], logits_type=pb.DATA_TYPE_FP32, **fields.pop("output", {})
    )
    prompt = pb.Prompt(prompt_id="cup", steps=steps)
    return decoder_pb2.SegmentRequest(image_id="cup", prompts=[prompt], output=output, **fields)


def logits_of(result: pb.PromptResult) -> list[NDArray[np.float32]]:
    return [np.frombuffer(mask.logits.data, "<f4").reshape(mask.logits.height, -1) for mask in result.masks]


@pytest.mark.parametrize("way", ["one by one", "at once", "without memory"])
def test_corrective_clicks_of_unary_calls_equal_sam2(
    exact: tuple[str, str], photo: Path, valkey: str, way: str
) -> None:
    """Also where the decoder has seen none of the steps before, or keeps none of them."""
    reference, logits = Reference(build_demo(), over_white(photo)), None
    options = ("--logits-cache-bytes", "0") if way == "without memory" else ()
    with server("maskwire_decoder", valkey, *options) as address, grpc.insecure_channel(address) as channel:
        decoder = decoder_pb2_grpc.DecoderServiceStub(channel)
        for count in range(1, 6):
            points, labels = [click[:2] for click in CLICKS[:count]], [click[2] for click in CLICKS[:count]]
            answer = reference.predict({"points": points, "labels": labels, "mask": logits}, multimask=logits is None)
            best = int(answer.scores.argmax())
            logits = answer.logits[best]
            if way == "at once" and count < 5:
                continue
            (result,) = decoder.Segment(asked([added(*click) for click in CLICKS[:count]])).results
            np.testing.assert_allclose(logits_of(result)[0], logits, atol=1e-3)
            assert result.masks[0].score == pytest.approx(float(answer.scores[best]), abs=1e-3)


def test_known_steps_are_not_decoded_again_and_all_candidates_are_to_be_had(exact: tuple[str, str]) -> None:
    with grpc.insecure_channel(exact[1]) as channel:
        decoder = decoder_pb2_grpc.DecoderServiceStub(channel)
        steps = [added(200, 200), added(210, 210, 0)]
        first, undone = decoder.Segment(asked(steps)), decoder.Segment(asked(steps[:1]))
        assert first.timings.decode_ms > 0
        assert undone.timings.decode_ms == 0
        every = decoder.Segment(asked(steps[:1], output={"candidates": pb.CANDIDATES_ALL}))
        assert len(every.results[0].masks) == 3
        best = max(every.results[0].masks, key=lambda mask: mask.score)
        assert best.rle.counts == undone.results[0].masks[0].rle.counts
        again = decoder.Segment(asked(steps[:1]))
        assert [mask.rle.counts for mask in again.results[0].masks] == [best.rle.counts]
        assert again.timings.decode_ms == 0


def streamed(address: str, image_id: str, requests: list[decoder_pb2.StreamPrompts]) -> list[Any]:
    """The answers of one stream."""
    with grpc.insecure_channel(address) as channel:
        messages = [decoder_pb2.SegmentStreamRequest(set_image=decoder_pb2.SetImage(image_id=image_id))]
        messages += [decoder_pb2.SegmentStreamRequest(segment=request) for request in requests]
        return list(decoder_pb2_grpc.DecoderServiceStub(channel).SegmentStream(iter(messages)))[1:]


def test_requests_at_the_same_time_decode_what_they_share_once(exact: tuple[str, str]) -> None:
    steps = [added(300 + index, 200) for index in range(30)]
    ends = [added(10, 10 * index) for index in range(8)]
    decodes: list[int] = []

    def ask(end: pb.Step) -> None:
        prompts = decoder_pb2.StreamPrompts(prompts=[pb.Prompt(steps=[*steps, end])])
        decodes.append(streamed(exact[1], "cup", [prompts])[0].counters.decodes)

    threads = [threading.Thread(target=ask, args=(end,)) for end in ends]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(decodes) == len(steps) + len(ends)


def test_decoders_share_logits_of_steps_where_they_are_asked_to(exact: tuple[str, str], valkey: str) -> None:
    steps = [added(x, y, label) for x, y, label in [(250, 140, 1), (310, 320, 0), (390, 160, 1)]]
    with server("maskwire_decoder", valkey) as other:
        decodes = []
        for shares in (True, False):
            one, two = [
                decoder_pb2.StreamPrompts(
                    prompts=[pb.Prompt(steps=[*steps, added(5, 5 + shares)][:count])], save_logits=shares
                )
                for count in (3, 4)
            ]
            streamed(exact[1], "cup", [one])
            (answer,) = streamed(other, "cup", [two])
            decodes.append(answer.counters.decodes)
            (here,) = streamed(exact[1], "cup", [two])
            assert here.result.results[0].masks == answer.result.results[0].masks
        assert decodes == [1, 4]


def test_long_lists_of_many_objects_stay_within_the_memory(exact: tuple[str, str], valkey: str, photo: Path) -> None:
    """A caller sends lists of 1000 steps for many objects, on one stream and on several at once. What the decoder keeps
    of them is in its cache, and what waits to be read stays with the transport."""
    budget = 16 << 20
    with running_server("maskwire_decoder", valkey, "--logits-cache-bytes", str(budget)) as (address, pid):

        def attack(seed: int, objects: int) -> None:
            requests = []
            for number in range(objects):
                steps = [
                    added(1 + seed, 2 + number) if index < 255 or index % 2 else pb.Step(remove_point=0)
                    for index in range(998)
                ]
                steps += [pb.Step(clear={}), added(3 + number, 4 + seed)]
                requests.append(decoder_pb2.StreamPrompts(prompts=[pb.Prompt(steps=steps)]))
            answers = streamed(address, "cup", requests)
            assert all(answer.HasField("result") for answer in answers)
            assert answers[-1].counters.decodes == objects

        attack(0, 20)  # opens what every decoder needs
        before = resident_bytes(pid)
        attack(1, 300)
        after_one = resident_bytes(pid)
        threads = [threading.Thread(target=attack, args=(10 + seed, 100)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        after_all = resident_bytes(pid)
    print(f"resident MB: {before / 1e6:.0f}, {after_one / 1e6:.0f} after 300 objects, {after_all / 1e6:.0f} after 700")
    assert after_all - before < budget + 64e6


def test_predictions_of_deep_objects_stay_within_the_memory(exact: tuple[str, str], valkey: str) -> None:
    """Every step of these lists is decoded and kept: about five times the cache's bytes."""
    budget, count = 4 << 20, 300  # steps of 64 KiB of logits each
    with running_server("maskwire_decoder", valkey, "--logits-cache-bytes", str(budget)) as (address, pid):
        streamed(address, "cup", [decoder_pb2.StreamPrompts(prompts=[pb.Prompt(steps=[added(5, 5)])])])
        before = resident_bytes(pid)
        places = itertools.cycle([(x, y) for x in range(10, 60, 5) for y in range(10, 60, 5)])
        steps = [
            added(*next(places)) if index % 2 == 0 else pb.Step(remove_point=0, refine=True) for index in range(count)
        ]
        steps = [added(300, 200), *steps]
        (answer,) = streamed(address, "cup", [decoder_pb2.StreamPrompts(prompts=[pb.Prompt(steps=steps)])])
        assert answer.counters.decodes == count + 1
        after = resident_bytes(pid)
    print(f"resident MB: {before / 1e6:.0f}, {after / 1e6:.0f} after {count} steps")
    assert after - before < budget + 48e6
