"""The stages of answering a prompt, timed, and observed in `maskwire_stage_seconds`. They run on worker threads."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

from maskwire.v1 import types_pb2
from maskwire_core.telemetry.metrics import STAGES
from prometheus_client import Histogram

from maskwire_decoder.images import Image
from maskwire_decoder.masks import rendering
from maskwire_decoder.prompts.encoding import Prediction
from maskwire_decoder.prompts.parsing import Output, Prompt

FETCH, DECODE, MASK = (STAGES.labels(stage) for stage in ("fetch", "decode", "mask"))


@dataclass(frozen=True)
class Timings:
    """Milliseconds by stage, added up over prompts."""

    queue_ms: float = 0  # waiting for a worker thread
    fetch_ms: float = 0  # finding the embedding
    decode_ms: float = 0  # prompt encoder and mask decoder
    mask_ms: float = 0  # upsampling and encoding masks

    def __add__(self, other: "Timings") -> "Timings":
        return Timings(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


class Stopwatch:
    """Measures a stage; `ms` is set when the stage has ended."""

    ms = 0.0


@contextmanager
def timed(stage: Histogram) -> Iterator[Stopwatch]:
    """Times its body, and observes it in a stage's histogram unless it raises."""
    stopwatch, started = Stopwatch(), time.perf_counter()
    yield stopwatch
    seconds = time.perf_counter() - started
    stage.observe(seconds)
    stopwatch.ms = seconds * 1e3


@dataclass(frozen=True)
class Answer:
    """The masks of prompts, and what they took; answers add up.

    Attributes:
        predictions: What the model gave for each prompt.
        results: Its masks in the forms that were asked for; empty where they were not made.
        timings: Where the time went.
        decodes: How many prompts were decoded.
    """

    predictions: tuple[Prediction, ...] = ()
    results: tuple[types_pb2.PromptResult, ...] = ()
    timings: Timings = Timings()
    decodes: int = 0

    def __add__(self, other: "Answer") -> "Answer":
        return Answer(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


def decode(image: Image, prompt: Prompt, every: bool) -> Answer:
    """Decodes a prompt.

    Args:
        image: The image.
        prompt: The prompt, in pixels of the image.
        every: All candidates, or the one with the highest predicted IoU.
    """
    width, height = image.header.width, image.header.height
    with timed(DECODE) as stopwatch:
        prediction = image.predictor.predict(
            image.prepared, prompt, width, height, multimask=prompt.multimask, every=every
        )
    return Answer((prediction,), timings=Timings(decode_ms=stopwatch.ms), decodes=1)


def render(image: Image, prompt: Prompt, prediction: Prediction, output: Output, refined: bool) -> Answer:
    """Turns logits into masks of the image's size; see `rendering.render`."""
    with timed(MASK) as stopwatch:
        result = rendering.render(prompt, prediction, output, image.header.width, image.header.height, refined)
    return Answer(results=(result,), timings=Timings(mask_ms=stopwatch.ms))
