"""Objects whose steps several requests need at the same time."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from maskwire.v1 import types_pb2 as pb
from maskwire_core.masks.geometry import ImageSize
from maskwire_core.scheduling import fair_queue
from maskwire_core.scheduling.executors import ThreadScheduler
from maskwire_core.scheduling.scheduler import Demand
from maskwire_decoder.object_decoding import ObjectDecoder, Plan
from maskwire_decoder.prefix_cache import PrefixCache
from maskwire_decoder.prompts.encoding import Prediction
from maskwire_decoder.prompts.parsing import Limits, parse_output, parse_prompts

from testing.waiting import until


class _Predictor:
    """Gives the same for every prompt."""

    def predict(self, *_: Any, **__: Any) -> Prediction:
        return Prediction(np.ones((1, 16, 16), np.float32), np.ones(1, np.float32), 1.0)


def test_a_click_hurries_the_steps_that_it_shares_with_bulk_work() -> None:
    image: Any = SimpleNamespace(
        header=SimpleNamespace(namespace="a", content_key="b", width=600, height=400),
        predictor=_Predictor(),
        prepared=None,
        may_be_deleted=False,
    )
    prompt = parse_prompts(
        [pb.Prompt(steps=[pb.Step(add_point=pb.Point(x_px=place, y_px=place)) for place in (1, 2)])],
        pb.OutputOptions(),
        ImageSize(600, 400),
        16,
        Limits(1, 10, 1 << 20),
    )[0]
    may_go_on = threading.Event()

    async def scenario() -> None:
        scheduler = ThreadScheduler("decoder", 1, fair_queue.Limits(10))
        objects = ObjectDecoder(scheduler, PrefixCache(1 << 20), cast(Any, None))

        async def complete(bulk: bool) -> Plan:
            plan = objects.plan(image, prompt, parse_output(pb.OutputOptions()))
            return await objects.complete(Demand(fair_queue.Requester("a", bulk), bulk), image, plan)

        busy = asyncio.create_task(scheduler.run(Demand(fair_queue.Requester("a", "busy")), may_go_on.wait, 10))
        bulk = asyncio.create_task(complete(True))
        await until(lambda: scheduler.waiting_bulk == 1)
        click = asyncio.create_task(complete(False))
        await until(lambda: scheduler.waiting_bulk == 0)
        assert scheduler.waiting == 1
        may_go_on.set()
        await asyncio.gather(busy, bulk, click)

    asyncio.run(scenario())
