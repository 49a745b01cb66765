"""Turns the messages of decoder.proto into values, and values into messages."""

from collections.abc import Callable, Hashable
from dataclasses import asdict
from functools import partial
from typing import cast

from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import types_pb2
from maskwire_core.runtime.thread_priority import Rests

from maskwire_decoder.images import Image
from maskwire_decoder.prompts.parsing import Limits, parse_output, parse_prompts
from maskwire_decoder.segmenter import FoundImage, ImageReference, Query, Segmenter, demand_for
from maskwire_decoder.stages import Answer, Timings

_MANY = 200  # points and steps whose parsing would hold up the event loop for a millisecond


def parse_reference(message: pb.SegmentRequest | pb.SetImage) -> ImageReference:
    """Returns the image that a message names."""
    return ImageReference(message.namespace, message.image_id, message.content_key, message.wait_ms, message.model)


def parse_query(
    message: pb.SegmentRequest | pb.StreamPrompts, image: Image, limits: Limits, rest: Callable[[], None] = lambda: None
) -> Query:
    """Checks the prompts of a message against the image that they are for.

    Args:
        message: The message.
        image: The image.
        limits: Most prompts and points.
        rest: Called after each prompt.

    Raises:
        InvalidArgument: With the path of the field that is wrong.
    """
    output, mask_size = parse_output(message.output), image.predictor.config.mask_size
    prompts = parse_prompts(message.prompts, message.output, image.header.size, mask_size, limits, rest)
    load_logits = isinstance(message, pb.SegmentRequest) and message.load_logits  # streams have no such field
    return Query(prompts, output, message.save_logits, load_logits)


async def parse_query_aside(
    message: pb.SegmentRequest | pb.StreamPrompts, image: Image, segmenter: Segmenter, connection: Hashable
) -> Query:
    """As `parse_query`, on another thread where that takes long: prompts may have thousands of points, masks may be as
    large as the image. One such prompt is parsed in its turn; requests with several are parsed one after another, those
    of each tenant in its turn. Several prompts for which there is no room in the queue are refused before they are
    parsed (QUEUE_FULL).

    Args:
        message: The request.
        image: The image that it is for.
        segmenter: Has the limits and the worker threads.
        connection: Where the request came from; see `Requester`.
    """
    prompts = message.prompts
    few = len(prompts) <= segmenter.limits.prompts  # more of them are refused without a look at any
    if few and len(prompts) > 1:
        segmenter.scheduler.check_room(demand_for(image, connection, bulk=True), len(prompts))
    if few and (any(map(_has_mask, prompts)) or sum(len(p.steps) + len(p.points) for p in prompts) > _MANY):
        demand = demand_for(image, connection)
        if len(prompts) > 1:  # as a turn it would keep a worker thread for seconds
            parse = partial(parse_query, message, image, segmenter.limits, Rests())
            return cast(Query, (await segmenter.parser.submit(parse, demand)).result)
        return (await segmenter.scheduler.run(demand, parse_query, message, image, segmenter.limits)).result
    return parse_query(message, image, segmenter.limits)


def _has_mask(prompt: types_pb2.Prompt) -> bool:
    return prompt.HasField("mask_rle") or prompt.HasField("mask")


def image_message(found: FoundImage) -> pb.SegmentedImage:
    """Describes an image under the name that the caller used."""
    header = found.image.header
    width, height, region = header.size
    return pb.SegmentedImage(
        image_id=found.image_id,
        height_px=height,
        width_px=width,
        model=header.model,
        content_key=header.content_key,
        region=None if region is None else region.message(),
    )


def timings_message(timings: Timings, total_ms: float, in_memory: bool) -> pb.SegmentTimings:
    """Adds the time from the request to its answer, in milliseconds, and whether the image was in memory."""
    return pb.SegmentTimings(**asdict(timings), total_ms=total_ms, in_memory=in_memory)


def answer_message(answer: Answer, found: FoundImage, total_ms: float) -> pb.SegmentResponse:
    """Returns the response to a request with prompts; `total_ms` is the time from the request to its answer."""
    return pb.SegmentResponse(
        results=answer.results,
        image=image_message(found),
        timings=timings_message(found.timings + answer.timings, total_ms, found.in_memory),
    )


def trace_stages(answer: Answer, found: FoundImage, total_ms: float) -> list[tuple[str, float]]:
    """Returns the stages of answering prompts after the image was found, which followed one another, with their
    seconds. Several prompts are decoded side by side, so that they are one stage."""
    if len(answer.results) > 1:
        return [("prompts", (total_ms - found.timings.fetch_ms) / 1e3)]
    stages = {"queue": answer.timings.queue_ms, "decode": answer.timings.decode_ms, "mask": answer.timings.mask_ms}
    return [(name, ms / 1e3) for name, ms in stages.items()]
