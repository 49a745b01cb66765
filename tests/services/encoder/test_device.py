"""Batches that do not fit, devices that are lost, and devices that are chosen."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from maskwire import MaskwireError
from maskwire.cli.up import encoder_devices
from maskwire_core.config import EncoderSettings
from maskwire_core.errors import ResourceExhausted
from maskwire_encoder.backends.device import DeviceLost, Tensors, encode_batch


class Model:
    """Encodes at most `fits` images at a time, and none that is negative."""

    def __init__(self, fits: int, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.fits = fits
        self.batches: list[int] = []

    def encode(self, prepared: Sequence[torch.Tensor]) -> list[Tensors]:
        self.batches.append(len(prepared))
        if len(prepared) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if any(image < 0 for image in prepared):
            raise RuntimeError("CUDA error: device-side assert triggered")
        return [{"value": np.array(float(image))} for image in prepared]


@pytest.mark.parametrize(
    ("fits", "batches"), [(8, [7]), (3, [7, 3, 4, 2, 2]), (1, [7, 3, 1, 2, 1, 1, 4, 2, 1, 1, 2, 1, 1])]
)
def test_what_does_not_fit_is_split(fits: int, batches: list[int]) -> None:
    model = Model(fits)
    outcomes = encode_batch(model, [torch.tensor(value) for value in range(7)])
    assert [outcome["value"] for outcome in outcomes] == list(range(7))  # type: ignore[index]
    assert model.batches == batches


def test_what_does_not_fit_alone_is_refused() -> None:
    (outcome,) = encode_batch(Model(0), [torch.tensor(1)])
    assert isinstance(outcome, ResourceExhausted)
    assert (outcome.reason, outcome.retry_after_s) == ("DEVICE_OUT_OF_MEMORY", 1)


def test_an_error_of_a_device_that_still_works_is_told() -> None:
    with pytest.raises(RuntimeError, match="device-side assert"):
        encode_batch(Model(8), [torch.tensor(-1)])


def test_a_device_that_cannot_compute_is_lost() -> None:
    with pytest.raises(DeviceLost, match="meta is lost: CUDA error: device-side assert"):
        encode_batch(Model(8, "meta"), [torch.tensor(-1)])


def test_one_encoder_takes_one_device() -> None:
    assert EncoderSettings(device="cuda:1").device == "cuda:1"
    for several in ("cuda:0,cuda:1", "all", "gpu"):
        with pytest.raises(ValueError, match="'maskwire up --device cuda:0,cuda:1' or 'all'"):
            EncoderSettings(device=several)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there are CUDA devices")
def test_all_devices_are_none_without_cuda() -> None:
    with pytest.raises(MaskwireError, match="torch sees no CUDA device; use --device cpu"):
        encoder_devices("all")
    assert encoder_devices("cpu, cpu") == ["cpu", "cpu"]
