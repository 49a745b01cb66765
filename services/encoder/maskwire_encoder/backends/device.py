"""Batches on a device: what does not fit is split, and a device that is lost is noticed."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from maskwire_core.errors import ResourceExhausted
from numpy.typing import NDArray
from torch import Tensor

log = logging.getLogger(__name__)

Tensors = Mapping[str, NDArray[Any]]


class DeviceLost(Exception):
    """The device fails at everything, as after a sticky CUDA error; only a new process can use it again."""


class Encodes(Protocol):
    """What a batch is run by; `model.Model` is one."""

    device: torch.device

    def encode(self, prepared: Sequence[Tensor], /) -> Sequence[Tensors]:
        """Encodes what `Model.prepare` made."""


def encode(model: Encodes, prepared: Sequence[Tensor]) -> list[Tensors | Exception]:
    """Runs a batch, in smaller parts if the device's memory does not hold it.

    Args:
        model: What encodes.
        prepared: One tensor for each image.

    Returns:
        For each image its embedding, or DEVICE_OUT_OF_MEMORY if it does not even fit alone.

    Raises:
        DeviceLost: The device does not work any more.
        Exception: Whatever else the model raises.
    """
    try:
        return list(model.encode(prepared))
    except (torch.OutOfMemoryError, MemoryError) as error:
        log.warning("no memory for a batch of %d: %s", len(prepared), str(error).splitlines()[0])
    except Exception as error:
        if not works(model.device):
            raise DeviceLost(f"{model.device} is lost: {str(error).splitlines()[0]}") from error
        raise
    # Outside of the handler, whose exception holds on to the failed batch's memory.
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
    if len(prepared) == 1:
        return [ResourceExhausted("DEVICE_OUT_OF_MEMORY", f"{model.device} has no memory left", retry_after_s=1)]
    half = len(prepared) // 2
    return encode(model, prepared[:half]) + encode(model, prepared[half:])


def works(device: torch.device) -> bool:
    """Whether the device can still add."""
    try:
        return float(torch.ones(2, device=device).sum()) == 2
    except Exception:  # each backend has its own
        return False


def cuda_devices() -> list[str]:
    """The CUDA devices that torch sees, as `--device` takes them."""
    return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
