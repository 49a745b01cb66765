"""Decodes prompts, and for objects that are sent as steps, what has led to them where it is not known any more."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from maskwire_core.masks.answer_room import AnswerRoom
from maskwire_core.models.decoder_bundle import CANDIDATES
from maskwire_core.scheduling.executors import ThreadScheduler
from maskwire_core.scheduling.scheduler import Demand
from maskwire_core.scheduling.single_flight import Flights
from numpy.typing import NDArray

from maskwire_decoder.images import Image
from maskwire_decoder.masks.rendering import clamp
from maskwire_decoder.prefix_cache import PrefixCache, PrefixKey
from maskwire_decoder.prompts.earlier_prompts import find_earlier
from maskwire_decoder.prompts.encoding import Prediction
from maskwire_decoder.prompts.parsing import Output, Prompt
from maskwire_decoder.saved_logits import SavedLogits, name_steps
from maskwire_decoder.stages import Answer, Timings, decode, render


@dataclass(frozen=True)
class Plan:
    """How a prompt is going to be answered."""

    prompt: Prompt
    known: Prediction | None = None  # its prediction, if that is in memory
    feedback: NDArray[np.float32] | None = None  # SxS logits that the first missing step takes, or the prompt
    missing: range = range(0)  # indices of the steps before the last one that must be decoded
    refined: bool = False  # whether the logits are those of an earlier request (load_logits)
    spent: Answer = Answer()  # noqa: RUF009 - frozen; what decoding steps has taken so far


class ObjectDecoder:
    """Decodes prompts on worker threads, and keeps what it decoded of objects' steps.

    Args:
        scheduler: The worker threads.
        cache: Predictions by steps.
        saved: Logits that decoders share.
    """

    def __init__(self, scheduler: ThreadScheduler, cache: PrefixCache, saved: SavedLogits) -> None:
        self._scheduler = scheduler
        self._cache = cache
        self._saved = saved
        self._in_flight: Flights[Answer] = Flights(scheduler.hurry)

    def plan(self, image: Image, prompt: Prompt, output: Output) -> Plan:
        """Looks up in memory what a prompt needs."""
        history = prompt.history
        if history is None:
            return Plan(prompt, feedback=prompt.mask)
        known = self._cache.get(_key(image, history.last.digest))
        if known is not None and (len(known.iou) == CANDIDATES or not prompt.gives_all(output.every)):
            return Plan(prompt, known if output.every else known.only_best())
        first = last = len(history.steps) - 1
        for index in history.predecessors():
            before = self._cache.get(_key(image, history.steps[index].digest))
            if before is not None:
                return Plan(prompt, feedback=clamp(before.best), missing=range(first, last))
            first = index
        return Plan(prompt, missing=range(first, last))

    def find_saved(self, image: Image, plans: Sequence[Plan]) -> list[Plan]:
        """Shortens what is missing by logits that other decoders have saved. Blocks."""
        if not any(plan.missing for plan in plans):
            return list(plans)
        saved = set(self._saved.names(image, "steps"))
        return [self._shorten(image, plan, saved) for plan in plans]

    def _shorten(self, image: Image, plan: Plan, saved: set[bytes]) -> Plan:
        for index in reversed(plan.missing):
            assert plan.prompt.history is not None
            name = name_steps(plan.prompt.history.steps[index])
            logits = self._saved.load(image, "steps", name) if name in saved else None
            if logits is not None:
                return replace(plan, feedback=logits[0], missing=range(index + 1, plan.missing.stop))
        return plan

    def find_earlier(self, image: Image, plans: Sequence[Plan]) -> list[Plan]:
        """Gives prompts the logits of an earlier request, where they have no mask and are not steps. Blocks."""
        plain, found = [index for index, plan in enumerate(plans) if plan.prompt.history is None], list(plans)
        earlier = find_earlier(self._saved.names(image, "prompts"), [plans[index].prompt for index in plain])
        if earlier is not None:
            logits = self._saved.load(image, "prompts", earlier.name, len(earlier.places))
            for place, mask in zip(earlier.places, () if logits is None else logits, strict=False):
                if found[plain[place]].feedback is None:
                    found[plain[place]] = replace(found[plain[place]], feedback=mask, refined=True)
        return found

    async def complete(self, demand: Demand, image: Image, plan: Plan) -> Plan:
        """Decodes the missing steps, a turn for each; one that another request is decoding at the moment is waited for.

        Returns:
            The plan with nothing missing.
        """
        if plan.prompt.history is None:
            return plan
        feedback, spent = plan.feedback, Answer()
        for step, shape in plan.prompt.history.shapes(plan.missing):
            prompt = Prompt("", *shape.arrays, feedback, step.multimask, candidate=step.candidate)
            key = _key(image, step.digest)
            shared = Demand(demand.requester, demand.bulk)  # others who wait for the step may have more time

            answer, is_others = await self._in_flight.share(
                key, partial(self._decode_step, shared, image, prompt, key), shared
            )
            feedback = clamp(answer.predictions[0].best)
            spent += Answer() if is_others else replace(answer, predictions=())
        return replace(plan, feedback=feedback, missing=range(0), spent=spent)

    async def _decode_step(self, demand: Demand, image: Image, prompt: Prompt, key: PrefixKey) -> Answer:
        known = self._cache.get(key)  # decoded for another request since the plan was made
        if known is not None:
            return Answer((known,))
        answer, queue_ms = await self._scheduler.run(demand, decode, image, prompt, False)
        if not image.may_be_deleted:
            self._cache.put(key, answer.predictions[0])
        return replace(answer, timings=answer.timings + Timings(queue_ms))

    async def answer(
        self, demand: Demand, image: Image, plan: Plan, output: Output, room: AnswerRoom, *, with_prediction: bool
    ) -> Answer:
        """Makes the masks of a prompt, as far as there is room in the answer that they belong to. What the model gave
        for it is only kept with them if it is needed."""
        plan = await self.complete(demand, image, plan)
        answer, queue_ms = await self._scheduler.run(demand, decode_and_render, image, plan, output, room)
        if plan.prompt.history is not None and plan.known is None and not image.may_be_deleted:
            self._cache.put(_key(image, plan.prompt.history.last.digest), answer.predictions[0])
        predictions = answer.predictions if with_prediction else ()
        return replace(answer, predictions=predictions, timings=answer.timings + Timings(queue_ms))


def decode_and_render(
    image: Image, plan: Plan, output: Output, room: AnswerRoom, is_wanted: Callable[[], bool] = lambda: True
) -> Answer:
    """Makes the masks of a prompt for which nothing is missing. Runs on a worker thread.

    Args:
        image: The image.
        plan: With no missing steps.
        output: The forms of the masks.
        room: What is left of the answer that they belong to.
        is_wanted: Asked after decoding; if it says no, the masks are not made.
    """
    prompt, known = replace(plan.prompt, mask=plan.feedback), plan.known
    answer = Answer((known,)) if known is not None else decode(image, prompt, output.every)
    if is_wanted():
        answer += render(image, prompt, answer.predictions[0], output, plan.refined, room)
    return plan.spent + answer


def _key(image: Image, digest: bytes) -> PrefixKey:
    return image.header.namespace, image.header.content_key, digest
