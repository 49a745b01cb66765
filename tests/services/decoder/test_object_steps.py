"""What a decoder makes of objects as lists of steps."""

import itertools
import threading
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from maskwire.v1 import decoder_pb2, decoder_pb2_grpc, encoder_pb2_grpc
from maskwire.v1 import types_pb2 as pb
from numpy.typing import NDArray

from testing.clicks import CLICKS
from testing.processes import resident_bytes
from testing.reference.predictor import Reference, build_demo, over_white
from testing.servers import Stack, running_server, server
from testing.wire import frames


def added(x: float, y: float, label: int = 1, **fields: Any) -> pb.Step:
    return pb.Step(add_point=pb.Point(x_px=x, y_px=y, label=label), **fields)


# The cache


@pytest.fixture(scope="module", autouse=True)
def cup(exact: Stack, photo: Path) -> None:
    """The photograph is stored as "cup"."""
    embed(exact.encoder, photo)


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
def test_corrective_clicks_of_unary_calls_equal_sam2(exact: Stack, photo: Path, way: str) -> None:
    """Also where the decoder has seen none of the steps before, or keeps none of them."""
    reference, logits = Reference(build_demo(), over_white(photo)), None
    options = ("--logits-cache-bytes", "0") if way == "without memory" else ()
    with server("maskwire_decoder", exact.redis_url, *options) as address, grpc.insecure_channel(address) as channel:
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


def test_known_steps_are_not_decoded_again_and_all_candidates_are_to_be_had(exact: Stack) -> None:
    with grpc.insecure_channel(exact.decoder) as channel:
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


def test_later_steps_go_on_from_the_candidate_that_was_chosen(exact: Stack, photo: Path) -> None:
    reference = Reference(build_demo(), over_white(photo))
    with grpc.insecure_channel(exact.decoder) as channel:
        decoder = decoder_pb2_grpc.DecoderServiceStub(channel)
        output = {"candidates": pb.CANDIDATES_ALL}
        every = logits_of(decoder.Segment(asked([added(260, 130)], output=output)).results[0])
        for number, expected in enumerate(every, 1):
            first = added(260, 130, candidate=number)
            (chosen,) = decoder.Segment(asked([first], output=output)).results
            np.testing.assert_allclose(logits_of(chosen), [expected], atol=1e-4)
            (refined,) = decoder.Segment(asked([first, added(300, 330, 0)])).results
            clicks = {"points": [(260, 130), (300, 330)], "labels": [1, 0], "mask": expected}
            answer = reference.predict(clicks, multimask=False)
            np.testing.assert_allclose(logits_of(refined)[0], answer.logits[0], atol=1e-3)


def streamed(address: str, image_id: str, requests: list[decoder_pb2.StreamPrompts]) -> list[Any]:
    """The answers of one stream."""
    with grpc.insecure_channel(address) as channel:
        messages = [decoder_pb2.SegmentStreamRequest(set_image=decoder_pb2.SetImage(image_id=image_id))]
        messages += [decoder_pb2.SegmentStreamRequest(segment=request) for request in requests]
        return list(decoder_pb2_grpc.DecoderServiceStub(channel).SegmentStream(iter(messages)))[1:]


def test_requests_at_the_same_time_decode_what_they_share_once(exact: Stack) -> None:
    steps = [added(300 + index, 200) for index in range(30)]
    ends = [added(10, 10 * index) for index in range(8)]
    decodes: list[int] = []

    def ask(end: pb.Step) -> None:
        prompts = decoder_pb2.StreamPrompts(prompts=[pb.Prompt(steps=[*steps, end])])
        decodes.append(streamed(exact.decoder, "cup", [prompts])[0].counters.decodes)

    threads = [threading.Thread(target=ask, args=(end,)) for end in ends]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(decodes) == len(steps) + len(ends)


def test_decoders_share_logits_of_steps_where_they_are_asked_to(exact: Stack) -> None:
    steps = [added(x, y, label) for x, y, label in [(250, 140, 1), (310, 320, 0), (390, 160, 1)]]
    with server("maskwire_decoder", exact.redis_url) as other:
        decodes = []
        for shares in (True, False):
            one, two = [
                decoder_pb2.StreamPrompts(
                    prompts=[pb.Prompt(steps=[*steps, added(5, 5 + shares)][:count])], save_logits=shares
                )
                for count in (3, 4)
            ]
            streamed(exact.decoder, "cup", [one])
            (answer,) = streamed(other, "cup", [two])
            decodes.append(answer.counters.decodes)
            (here,) = streamed(exact.decoder, "cup", [two])
            assert here.result.results[0].masks == answer.result.results[0].masks
        assert decodes == [1, 4]


def test_long_lists_of_many_objects_stay_within_the_memory(exact: Stack, photo: Path) -> None:
    """A caller sends lists of 1000 steps for many objects, on one stream and on several at once. What the decoder keeps
    of them is in its cache, and what waits to be read stays with the transport."""
    budget = 4 << 20  # the logits of 64 objects
    with running_server("maskwire_decoder", exact.redis_url, "--logits-cache-bytes", str(budget)) as (address, pid):

        def attack(seed: int, objects: int) -> None:
            requests = []
            for number in range(objects):
                click, removal = added(1 + seed, 2 + number), pb.Step(remove_point=0)
                steps = [click if index < 255 or index % 2 else removal for index in range(998)]
                steps += [pb.Step(clear={}), added(3 + number, 4 + seed)]
                requests.append(decoder_pb2.StreamPrompts(prompts=[pb.Prompt(steps=steps)]))
            answers = streamed(address, "cup", requests)
            assert all(answer.HasField("result") for answer in answers)
            assert answers[-1].counters.decodes == objects

        attack(0, 20)  # opens what every decoder needs
        before = resident_bytes(pid)
        attack(1, 75)
        after_one = resident_bytes(pid)
        threads = [threading.Thread(target=attack, args=(10 + seed, 25)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        after_all = resident_bytes(pid)
    print(f"resident MB: {before / 1e6:.0f}, {after_one / 1e6:.0f} after 75 objects, {after_all / 1e6:.0f} after 175")
    assert after_all - before < budget + 32e6


def test_predictions_of_deep_objects_stay_within_the_memory(exact: Stack) -> None:
    """Every step of these lists is decoded and kept: about five times the cache's bytes."""
    budget, count = 4 << 20, 300  # steps of 64 KiB of logits each
    with running_server("maskwire_decoder", exact.redis_url, "--logits-cache-bytes", str(budget)) as (address, pid):
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
