"""Running batches on a device: splitting those that do not fit its memory, and detecting that it is lost."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from maskwire_core.errors import ResourceExhausted
from numpy.typing import NDArray
from torch import Tensor

log = logging.getLogger(__name__)

Tensors = Mapping[str, NDArray[Any]]
"""One image's embedding, by `features.NAMES`."""


class DeviceLost(Exception):
    """The device fails at everything, as after a sticky CUDA error; only a new process can use it again."""


class BatchEncoder(Protocol):
    """What `encode_batch` needs of a `Model`."""

    device: torch.device

    def encode(self, prepared: Sequence[Tensor], /) -> Sequence[Tensors]:
        """Encodes what `Model.prepare` returned."""


def encode_batch(model: BatchEncoder, prepared: Sequence[Tensor]) -> list[Tensors | Exception]:
    """Encodes a batch, in smaller parts if it does not fit the device's memory.

    Args:
        model: The model.
        prepared: One tensor for each image, from `Model.prepare`.

    Returns:
        For each image its embedding, or DEVICE_OUT_OF_MEMORY if it does not fit even alone.

    Raises:
        DeviceLost: The device does not work any more.
        Exception: Any other error of the model.
    """
    try:
        return list(model.encode(prepared))
    except (torch.OutOfMemoryError, MemoryError) as error:
        log.warning("no memory for a batch of %d: %s", len(prepared), str(error).splitlines()[0])
    except Exception as error:
        if not _works(model.device):
            raise DeviceLost(f"{model.device} is lost: {str(error).splitlines()[0]}") from error
        raise
    # Outside the except block, because the exception holds references to the memory of the failed batch.
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
    if len(prepared) == 1:
        return [ResourceExhausted("DEVICE_OUT_OF_MEMORY", f"{model.device} has no memory left", retry_after_s=1)]
    half = len(prepared) // 2
    return encode_batch(model, prepared[:half]) + encode_batch(model, prepared[half:])


def _works(device: torch.device) -> bool:
    """Whether the device can still add two numbers."""
    try:
        return float(torch.ones(2, device=device).sum()) == 2
    except Exception:  # each backend raises its own types
        return False


def cuda_devices() -> list[str]:
    """The CUDA devices that torch finds, as `--device` takes them."""
    return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
