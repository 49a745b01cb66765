"""The metrics of an encoder: its queue, how work left the queue, and the device."""

from collections.abc import Callable, Sequence

import torch
from maskwire_core.telemetry.metrics import Reading

from maskwire_encoder.pipeline import Pipeline


def readings(pipeline: Pipeline, queue_limit: int) -> Sequence[Reading]:
    """The gauges and counters of a pipeline; `GetLoad` returns the same figures."""
    readers, model, device = pipeline.readers, pipeline.model, pipeline.device

    def waiting(urgency: str, count: Callable[[], float]) -> Reading:
        text = "Images that wait to be read or encoded."
        return Reading("maskwire_queue_waiting", text, count, (("urgency", urgency),))

    def left(how: str, count: Callable[[], float]) -> Reading:
        text = "Images that left the queue without being encoded."
        return Reading("maskwire_queue_left_total", text, count, (("how", how),))

    def memory(kind: str, count: Callable[[], float]) -> Reading:
        text = "Memory of the device; used by all processes."
        return Reading("maskwire_device_memory_bytes", text, count, (("device", str(device)), ("kind", kind)))

    found = [
        waiting("interactive", lambda: pipeline.waiting - pipeline.waiting_bulk),
        waiting("bulk", lambda: pipeline.waiting_bulk),
        Reading("maskwire_queue_limit", "Most images that may wait.", lambda: queue_limit),
        Reading(
            "maskwire_queue_oldest_seconds",
            "How long the oldest image has waited.",
            lambda: max(readers.oldest_wait_s, model.oldest_wait_s),
        ),
        Reading(
            "maskwire_backlog_seconds",
            "Time that the waiting images will take at the present rate.",
            lambda: pipeline.backlog_s,
        ),
        left("refused", lambda: readers.tally.refused),
        left("expired", lambda: readers.tally.expired + model.tally.expired),
        left("cancelled", lambda: readers.tally.cancelled + model.tally.cancelled),
        Reading(
            "maskwire_device_busy_seconds_total",
            "Summed duration of all batches; its rate is the utilisation, up to 2 on CUDA, where two batches overlap.",
            lambda: model.tally.busy_s,
            (("device", str(device)),),
        ),
    ]
    if device.type == "cuda":
        found += [memory("used", lambda: _used(device)), memory("total", lambda: torch.cuda.mem_get_info(device)[1])]
    return found


def _used(device: torch.device) -> float:
    free, total = torch.cuda.mem_get_info(device)
    return total - free
