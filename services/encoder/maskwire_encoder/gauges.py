"""What metrics tell of an encoder: the queue, what became of what waited in it, and the device."""

from collections.abc import Callable, Sequence

import torch
from maskwire_core.telemetry.metrics import Reading

from maskwire_encoder.pipeline import Pipeline

_WAITING = "Images that wait, be it to be read or to be encoded."
_LEFT = "Images that left the queue without being encoded."
_MEMORY = "Memory of the device; used by all processes."


def readings(pipeline: Pipeline, queue_limit: int) -> Sequence[Reading]:
    """Those of a pipeline; `GetLoad` tells the same."""
    readers, model, device = pipeline.readers, pipeline.model, pipeline.device

    def left(how: str, count: Callable[[], float]) -> Reading:
        return Reading("maskwire_queue_left_total", _LEFT, count, (("how", how),))

    found = [
        Reading(
            "maskwire_queue_waiting",
            _WAITING,
            lambda: pipeline.waiting - pipeline.waiting_bulk,
            (("urgency", "interactive"),),
        ),
        Reading("maskwire_queue_waiting", _WAITING, lambda: pipeline.waiting_bulk, (("urgency", "bulk"),)),
        Reading("maskwire_queue_limit", "Images that may wait.", lambda: queue_limit),
        Reading(
            "maskwire_queue_oldest_seconds",
            "How long the oldest has waited.",
            lambda: max(readers.oldest_wait_s, model.oldest_wait_s),
        ),
        Reading(
            "maskwire_backlog_seconds",
            "How long all that waits will take at the present rate.",
            lambda: pipeline.backlog_s,
        ),
        left("refused", lambda: readers.tally.refused),
        left("expired", lambda: readers.tally.expired + model.tally.expired),
        left("cancelled", lambda: readers.tally.cancelled + model.tally.cancelled),
        Reading(
            "maskwire_device_busy_seconds_total",
            "Seconds of all batches together; its rate is the utilisation, up to 2 on CUDA, where two overlap.",
            lambda: model.tally.busy_s,
            (("device", str(device)),),
        ),
    ]
    if device.type == "cuda":
        name = str(device)
        found += [
            Reading(
                "maskwire_device_memory_bytes", _MEMORY, lambda: _used(device), (("device", name), ("kind", "used"))
            ),
            Reading(
                "maskwire_device_memory_bytes", _MEMORY, lambda: _all(device), (("device", name), ("kind", "total"))
            ),
        ]
    return found


def _used(device: torch.device) -> float:
    free, total = torch.cuda.mem_get_info(device)
    return total - free


def _all(device: torch.device) -> float:
    return torch.cuda.mem_get_info(device)[1]
