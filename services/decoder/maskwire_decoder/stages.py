"""The stages of answering a prompt, timed, and observed in `maskwire_stage_seconds`. They run on worker threads."""

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import ParamSpec, TypeVar

from maskwire.v1 import types_pb2
from maskwire_core.masks.answer_room import AnswerRoom
from maskwire_core.telemetry.metrics import STAGES
from prometheus_client import Histogram

from maskwire_decoder.images import Image
from maskwire_decoder.masks import rendering
from maskwire_decoder.prompts.encoding import Prediction
from maskwire_decoder.prompts.parsing import Output, Prompt

P = ParamSpec("P")
T = TypeVar("T")

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


def timed(stage: Histogram, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, float]:
    """Calls a function, and observes its time in a stage's histogram unless it raises. Returns its result and the
    milliseconds that it took."""
    started = time.perf_counter()
    result = function(*args, **kwargs)
    seconds = time.perf_counter() - started
    stage.observe(seconds)
    return result, seconds * 1e3


@dataclass(frozen=True)
class Answer:
    """The masks of prompts, and what they took; answers add up."""

    predictions: tuple[Prediction, ...] = ()  # what the model gave for each prompt
    results: tuple[types_pb2.PromptResult, ...] = ()  # its masks in the forms asked for; empty where they were not made
    timings: Timings = Timings()
    decodes: int = 0  # how many prompts were decoded

    def __add__(self, other: "Answer") -> "Answer":
        return Answer(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


def decode(image: Image, prompt: Prompt, every: bool) -> Answer:
    """Decodes a prompt; see `Predictor.predict`."""
    width, height = image.header.width, image.header.height
    prediction, ms = timed(DECODE, image.predictor.predict, image.prepared, prompt, width, height, every=every)
    return Answer((prediction,), timings=Timings(decode_ms=ms), decodes=1)


def render(
    image: Image, prompt: Prompt, prediction: Prediction, output: Output, refined: bool, room: AnswerRoom
) -> Answer:
    """Turns logits into masks of the image's size; see `rendering.render`."""
    result, ms = timed(MASK, rendering.render, prompt, prediction, output, image.header.size, refined, room)
    return Answer(results=(result,), timings=Timings(mask_ms=ms))
