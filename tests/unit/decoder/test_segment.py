"""Unary requests: the masks themselves, refinement by steps, and what is kept between requests."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import numpy as np
import pytest
from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import types_pb2
from maskwire_core import call_context
from maskwire_core.errors import InvalidArgument, NotFound, ResourceExhausted, ServiceError
from maskwire_core.masks.rle import rle
from maskwire_core.storage.store import Store
from maskwire_core.tenancy.tenant import EVERYBODY
from numpy.typing import NDArray

from testing.plain_decoder import (
    HEIGHT,
    IOU,
    MASK_SIZE,
    WIDTH,
    Clicks,
    PlainDecoder,
    logits_in,
    logits_of_clicks,
    put_image,
    refined,
)

A, B, C = (30, 40, 1), (80, 40, 1), (60, 20, 0)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    async def call() -> Any:
        call_context.begin("").caller = EVERYBODY
        return await work

    return asyncio.run(call())


def points(clicks: Clicks) -> list[types_pb2.Point]:
    return [types_pb2.Point(x_px=x, y_px=y, label=label) for x, y, label in clicks]


def asking(prompts: Sequence[types_pb2.Prompt], image_id: str = "cup", **fields: Any) -> pb.SegmentRequest:
    output = types_pb2.OutputOptions(
        formats=[types_pb2.MASK_FORMAT_RLE, types_pb2.MASK_FORMAT_LOGITS], logits_type=types_pb2.DATA_TYPE_FP32
    )
    return pb.SegmentRequest(**{"image_id": image_id, "prompts": prompts, "output": output, **fields})


def steps(clicks: Clicks, **fields: Any) -> types_pb2.Prompt:
    return types_pb2.Prompt(steps=[types_pb2.Step(add_point=point, **fields) for point in points(clicks)])


def check(mask: types_pb2.Mask, wanted: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(logits_in(mask), wanted, atol=1e-4)
    assert mask.rle.counts.encode() == rle(logits_in(mask), WIDTH, HEIGHT)["counts"]


def decodes(decoder: PlainDecoder) -> int:
    return decoder.segmenter.scheduler.tally.done


def test_masks_are_those_of_the_model(decoder: PlainDecoder, image: NDArray[np.float32]) -> None:
    request = asking([types_pb2.Prompt(points=points([A, C])), types_pb2.Prompt(prompt_id="b", points=points([B]))])
    response = run(decoder.segment(request))
    for result, clicks in zip(response.results, ([A, C], [B]), strict=True):
        (mask,) = result.masks
        check(mask, logits_of_clicks(image, clicks, 2))
        assert mask.score == pytest.approx(0.97)
        assert result.object_score == 5
    assert [result.prompt_id for result in response.results] == ["", "b"]
    assert (response.image.image_id, response.image.width_px, response.image.height_px) == ("cup", WIDTH, HEIGHT)
    assert response.timings.in_memory is False
    assert run(decoder.segment(request)).timings.in_memory is True


def test_all_candidates_come_in_the_models_order(decoder: PlainDecoder, image: NDArray[np.float32]) -> None:
    request = asking([types_pb2.Prompt(points=points([A]))])
    request.output.candidates = types_pb2.CANDIDATES_ALL
    (result,) = run(decoder.segment(request)).results
    assert [mask.score for mask in result.masks] == pytest.approx(IOU[1:].tolist())
    for number, mask in enumerate(result.masks, 1):
        check(mask, logits_of_clicks(image, [A], number))


def test_a_mask_is_refined_and_the_single_mask_is_to_be_had(decoder: PlainDecoder, image: NDArray[np.float32]) -> None:
    before = logits_of_clicks(image, [A], 2)
    fed = types_pb2.Logits(
        height=MASK_SIZE, width=MASK_SIZE, data_type=types_pb2.DATA_TYPE_FP32, data=before.astype("<f4").tobytes()
    )
    request = asking([types_pb2.Prompt(points=points([A, B]), mask=fed)])
    request.output.multimask = False
    (result,) = run(decoder.segment(request)).results
    check(result.masks[0], logits_of_clicks(image, [A, B], 0, before))


def test_many_points_are_answered_alike(decoder: PlainDecoder, image: NDArray[np.float32]) -> None:
    many = [(float(x), 40.0, x % 2) for x in range(10, 110, 7)]
    (result,) = run(decoder.segment(asking([types_pb2.Prompt(points=points(many))]))).results
    check(result.masks[0], logits_of_clicks(image, many, 2))


def test_steps_refine_and_only_the_last_is_decoded_again(decoder: PlainDecoder, image: NDArray[np.float32]) -> None:
    for clicks in ([A], [A, B], [A, B, C]):
        before = decodes(decoder)
        (result,) = run(decoder.segment(asking([steps(clicks)]))).results
        check(result.masks[0], refined(image, clicks))
        assert decodes(decoder) - before == 1


def test_a_decoder_that_knows_nothing_gives_the_same_next_mask(
    decoder: PlainDecoder, another: Callable[[], PlainDecoder], image: NDArray[np.float32]
) -> None:
    run(decoder.segment(asking([steps([A, B])])))
    fresh = another()
    (result,) = run(fresh.segment(asking([steps([A, B, C])]))).results
    check(result.masks[0], refined(image, [A, B, C]))
    assert decodes(fresh) == 3


def test_saved_logits_of_steps_spare_another_decoder_the_work(
    decoder: PlainDecoder, another: Callable[[], PlainDecoder], image: NDArray[np.float32]
) -> None:
    run(decoder.segment(asking([steps([A, B])], save_logits=True)))
    fresh = another()
    (result,) = run(fresh.segment(asking([steps([A, B, C])], save_logits=True))).results
    check(result.masks[0], refined(image, [A, B, C]))
    assert decodes(fresh) == 1


def test_steps_that_refine_nothing_need_nothing_before_them(decoder: PlainDecoder, image: NDArray[np.float32]) -> None:
    (result,) = run(decoder.segment(asking([steps([A, B, C], refine=False)]))).results
    check(result.masks[0], logits_of_clicks(image, [A, B, C], 0))
    assert decodes(decoder) == 1


def test_requests_at_the_same_time_share_steps(decoder: PlainDecoder, image: NDArray[np.float32]) -> None:
    async def together() -> list[Any]:
        asked = [[A, B, C], [A, B, (10, 10, 0)], [A, B, (20, 70, 1)]]
        return list(await asyncio.gather(*(decoder.segment(asking([steps(clicks)])) for clicks in asked)))

    for response, last in zip(run(together()), (C, (10, 10, 0), (20, 70, 1)), strict=True):
        check(response.results[0].masks[0], refined(image, [A, B, last]))
    assert decodes(decoder) == 2 + 3


def test_an_earlier_request_is_refined_if_that_is_asked_for(
    decoder: PlainDecoder, another: Callable[[], PlainDecoder], image: NDArray[np.float32]
) -> None:
    run(decoder.segment(asking([types_pb2.Prompt(points=points([A]))], save_logits=True)))
    later = [types_pb2.Prompt(points=points([A, B]))]
    for asked in (decoder, another()):
        (result,) = run(asked.segment(asking(later, load_logits=True))).results
        assert result.refined
        check(result.masks[0], logits_of_clicks(image, [A, B], 2, logits_of_clicks(image, [A], 2)))
        (result,) = run(asked.segment(asking(later))).results
        assert not result.refined
        check(result.masks[0], logits_of_clicks(image, [A, B], 2))


def test_a_name_means_its_newest_image_and_a_content_key_its_own(
    decoder: PlainDecoder, store: Store, image: NDArray[np.float32]
) -> None:
    key = store.get_alias("default", "cup")
    prompts = [types_pb2.Prompt(points=points([A]))]
    run(decoder.segment(asking(prompts)))
    other = image + 1
    put_image(store, "cup", other, WIDTH, HEIGHT)
    check(run(decoder.segment(asking(prompts))).results[0].masks[0], logits_of_clicks(other, [A], 2))
    check(run(decoder.segment(asking(prompts, content_key=key))).results[0].masks[0], logits_of_clicks(image, [A], 2))


def test_images_of_another_namespace_are_not_found(decoder: PlainDecoder, store: Store) -> None:
    put_image(store, "mine", np.zeros((MASK_SIZE, MASK_SIZE), np.float32), 9, 9, "acme")
    prompts = [types_pb2.Prompt(points=points([(1, 1, 1)]))]
    assert run(decoder.segment(asking(prompts, "mine", namespace="acme"))).results
    for namespace in ("", "other"):
        with pytest.raises(NotFound) as caught:
            run(decoder.segment(asking(prompts, "mine", namespace=namespace)))
        assert caught.value.reason == "IMAGE_NOT_FOUND"


def test_an_image_that_comes_is_waited_for(decoder: PlainDecoder, store: Store) -> None:
    values = np.zeros((MASK_SIZE, MASK_SIZE), np.float32)

    async def waiting() -> Any:
        asked = asyncio.create_task(decoder.segment(asking([], "late", wait_ms=5000)))
        await asyncio.sleep(0.05)
        assert not asked.done()
        put_image(store, "late", values, WIDTH, HEIGHT)
        return await asked

    check(run(waiting()).results[0].masks[0], logits_of_clicks(values, [], 2))


def refused(decoder: PlainDecoder, request: pb.SegmentRequest) -> ServiceError:
    before = decodes(decoder)
    with pytest.raises(ServiceError) as caught:
        run(decoder.segment(request))
    assert decodes(decoder) == before
    return caught.value


@pytest.mark.usefixtures("image")
def test_what_cannot_be_answered_is_refused_before_it_is_decoded(decoder: PlainDecoder, store: Store) -> None:
    prompts = [types_pb2.Prompt(points=points([A]))]
    for fields, kind, reason, field in (
        ({"wait_ms": 60_001}, InvalidArgument, "BAD_WAIT", "wait_ms"),
        ({"content_key": "x"}, InvalidArgument, "BAD_CONTENT_KEY", "content_key"),
        ({"model": "tiny"}, InvalidArgument, "OTHER_MODEL", "model"),
        ({"image_id": "unknown"}, NotFound, "IMAGE_NOT_FOUND", "image_id"),
        ({"prompts": [types_pb2.Prompt(points=points([(121, 1, 1)]))]}, InvalidArgument, "OUT_OF_IMAGE", None),
    ):
        error = refused(decoder, asking(**{"prompts": prompts, **fields}))  # type: ignore[arg-type]
        assert (type(error), error.reason) == (kind, reason)
        assert field in (None, error.field)
    key = store.get_alias("default", "cup")
    assert key is not None
    store.delete_embedding("default", key)
    assert refused(PlainDecoder(store), asking(prompts)).reason == "EMBEDDING_EXPIRED"


@pytest.mark.usefixtures("image")
def test_an_answer_that_would_be_too_large_is_refused(decoder: PlainDecoder, store: Store) -> None:
    put_image(store, "large", np.zeros((MASK_SIZE, MASK_SIZE), np.float32), 10_900, 10_900)
    request = asking([types_pb2.Prompt(points=points([A]))] * 4, "large")
    request.output.formats.append(types_pb2.MASK_FORMAT_PACKED_BITS)
    named = asking([types_pb2.Prompt(prompt_id="x" * (1 << 20), points=points([A]))] * 50)
    for too_large in (request, named):
        error = refused(decoder, too_large)
        assert isinstance(error, ResourceExhausted)
        assert (error.reason, error.field) == ("ANSWER_TOO_LARGE", "output.formats")
        assert decodes(decoder) < 50
