"""The metrics of an encoder: its queue, how work left the queue, and the device."""

from collections.abc import Iterable, Sequence
from functools import partial

import torch
from maskwire_core.telemetry.metrics import LiveMetric

from maskwire_encoder.backends.model import Model
from maskwire_encoder.pipeline import Pipeline

_WAITING = "maskwire_queue_waiting", "Images that wait to be read or encoded."
_LEFT = "maskwire_queue_left_total", "Images that left the queue without being encoded."
_MEMORY = "maskwire_device_memory_bytes", "Memory of the device; used by all processes."


def live_metrics_of_models(models: Iterable[Model]) -> Sequence[LiveMetric]:
    """What storing embeddings as klt costs the masks of each model of which they are."""
    return [
        LiveMetric(
            "maskwire_klt_iou",
            "Mean IoU of masks from embeddings stored as klt with those from exact ones, as measured at the start.",
            partial(getattr, transform, "iou"),
            (("model", model.source.name),),
        )
        for model in models
        if (transform := model.transform) is not None
    ]


def live_metrics(pipeline: Pipeline, queue_limit: int) -> Sequence[LiveMetric]:
    """The gauges and counters of a pipeline; `GetLoad` returns the same figures."""
    model, device = pipeline.model, pipeline.device
    of_device = ("device", str(device))
    found = [
        LiveMetric(*_WAITING, lambda: pipeline.waiting - pipeline.waiting_bulk, (("urgency", "interactive"),)),
        LiveMetric(*_WAITING, lambda: pipeline.waiting_bulk, (("urgency", "bulk"),)),
        LiveMetric("maskwire_queue_limit", "Most images that may wait.", lambda: queue_limit),
        LiveMetric(
            "maskwire_queue_oldest_seconds", "How long the oldest image has waited.", lambda: pipeline.oldest_wait_s
        ),
        LiveMetric(
            "maskwire_backlog_seconds",
            "Time that the waiting images will take at the present rate.",
            lambda: pipeline.backlog_s,
        ),
        LiveMetric(*_LEFT, lambda: pipeline.left.refused, (("how", "refused"),)),
        LiveMetric(*_LEFT, lambda: pipeline.left.expired, (("how", "expired"),)),
        LiveMetric(*_LEFT, lambda: pipeline.left.cancelled, (("how", "cancelled"),)),
        LiveMetric(
            "maskwire_device_busy_seconds_total",
            "Summed duration of all batches; its rate is the utilisation, up to 2 on CUDA, where two batches overlap.",
            lambda: model.tally.busy_s,
            (of_device,),
        ),
    ]
    if device.type == "cuda":

        def memory() -> tuple[int, int]:
            return torch.cuda.mem_get_info(device)  # free and total

        found.append(LiveMetric(*_MEMORY, lambda: memory()[1] - memory()[0], (of_device, ("kind", "used"))))
        found.append(LiveMetric(*_MEMORY, lambda: memory()[1], (of_device, ("kind", "total"))))
    return found
