"""Batches on a device, run on the CPU: padding, packing, precision, the accuracy check, compiled packages."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from maskwire_core.storage.codecs import NotFinite, encode
from maskwire_encoder.backends.accuracy_check import AccuracyCheck
from maskwire_encoder.backends.aot_cache import compile_cached
from maskwire_encoder.backends.cuda import PRECISIONS, SIZES, CudaBackend, InPrecision, padded_size
from maskwire_encoder.backends.features import NAMES, ImageFeatures, from_patches
from maskwire_encoder.backends.model import Model
from maskwire_encoder.checkpoints import loading
from maskwire_encoder.decoder_export import export
from torch import Tensor, nn

from testing import small_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    settings = small_model.settings(tmp_path_factory.mktemp("model"))
    (source,) = loading.find(settings)
    return Model(source, settings)


@pytest.fixture(scope="module")
def sam(model: Model) -> Any:
    return loading.build(model.source).model


@pytest.fixture(scope="module")
def features(sam: Any) -> ImageFeatures:
    return ImageFeatures(sam).eval()


@pytest.fixture(scope="module")
def accuracy(sam: Any, features: ImageFeatures) -> AccuracyCheck:
    return AccuracyCheck(sam, features, CPU)


def images(count: int) -> list[Tensor]:
    random = np.random.default_rng(count)
    sizes = itertools.cycle([(90, 120), (256, 256), (300, 170), (33, 500)])
    return [torch.from_numpy(random.integers(0, 256, (*size, 3), np.uint8)) for size, _ in zip(sizes, range(count))]  # noqa: B905


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_patches_are_undone(patch: int) -> None:
    planes = torch.randn(2, 5, 6 * patch, 6 * patch)
    assert torch.equal(from_patches(export.to_patches(planes, patch), 6), planes)


def test_sizes() -> None:
    assert [padded_size(count, 32) for count in (1, 2, 3, 5, 9, 31, 32)] == [1, 2, 4, 8, 16, 32, 32]
    assert [padded_size(count, 6) for count in (1, 3, 5, 6)] == [1, 4, 6, 6]


@pytest.mark.parametrize("half", [False, True])
def test_any_batch_gives_each_image_its_own_embedding(model: Model, features: ImageFeatures, half: bool) -> None:
    """Whatever the size of the batch, its order and its padding: what the plain path stores."""
    accelerated = CudaBackend(features, model.image_size, CPU, largest=6, half=half)
    pictures = images(6)
    expected = [model.encode(model.prepare(picture.numpy())[None])[0] for picture in pictures]
    for order in ([0], [1, 2], [2, 5, 3, 1, 4]):
        batch = accelerated.encode([accelerated.prepare(pictures[index].numpy()) for index in order])
        assert len(batch) == len(order)
        for index, tensors in zip(order, batch, strict=True):
            assert set(tensors) == set(NAMES)
            for name, tensor in tensors.items():
                wanted = expected[index][name]
                if half:
                    assert tensor.dtype == np.float16
                    np.testing.assert_array_equal(encode("fp16", name, tensor)[""], tensor)
                    wanted = encode("fp16", name, wanted)[""]
                np.testing.assert_allclose(tensor, wanted, atol=1e-4, rtol=2e-3 if half else 1e-5)


def test_values_beyond_fp16_are_not_cut_so_that_they_are_noticed() -> None:
    class Large(nn.Module):
        def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
            return tuple(inputs.flatten(1)[:, None, :8] * 1e6 for _ in NAMES)

    (tensors,) = CudaBackend(Large(), 16, CPU, 1, half=True).encode(images(1))
    (plain,) = CudaBackend(Large(), 16, CPU, 1, half=False).encode(images(1))
    for name in NAMES:
        for values in (tensors[name], plain[name]):
            with pytest.raises(NotFinite):
                encode("fp16", name, values)


class Mixing(nn.Module):
    """Right alone; in a batch, each image also gets something of its neighbour."""

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        if len(inputs) > 2:
            inputs = inputs + 0.5 * inputs.roll(1, 0)
        outputs: tuple[Tensor, ...] = self.features(inputs)
        return outputs


def test_the_accuracy_check_knows_right_from_wrong(accuracy: AccuracyCheck, features: ImageFeatures) -> None:
    with torch.inference_mode():
        right = features(accuracy.inputs)
        wrong = Mixing(features)(accuracy.inputs)
    assert accuracy.check(right).iou > 0.9999
    assert accuracy.check(right).logit < 1e-3
    assert accuracy.check([torch.cat([part, part]) for part in right]).acceptable
    assert not accuracy.check(wrong).acceptable
    assert not accuracy.check([right[0], right[1] * float("nan"), right[2]]).acceptable
    assert not accuracy.check([part.roll(1, 0) for part in right]).acceptable


def test_sizes_whose_masks_are_wrong_are_not_used(accuracy: AccuracyCheck, features: ImageFeatures) -> None:
    accelerated = CudaBackend(Mixing(features), 128, CPU, largest=4, half=True)
    accelerated.start(accuracy, "fp32")
    assert accelerated.largest == 2


def test_the_precision_is_the_fastest_whose_masks_are_right(
    accuracy: AccuracyCheck, features: ImageFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is right depends on device and model; here a limit is put between what two of them reach."""
    deviations = {}
    for precision in ("fp16", "bf16"):
        with torch.inference_mode():
            deviations[precision] = accuracy.check(InPrecision(features, precision, CPU)(accuracy.inputs))
    assert deviations["fp16"].iou > deviations["bf16"].iou > 0.8
    for least, chosen in ((deviations["bf16"].iou - 0.01, "fp16"), (1.0, "tf32")):
        monkeypatch.setattr("maskwire_encoder.backends.accuracy_check.LEAST_IOU", least)
        accelerated = CudaBackend(features, 128, CPU, largest=2, half=True)
        accelerated.start(accuracy, "auto")
        assert accelerated.precision == chosen
    assert PRECISIONS.index("fp16") < PRECISIONS.index("bf16")


class OutOfMemory(nn.Module):
    def __init__(self, features: nn.Module, fits: int) -> None:
        super().__init__()
        self.features, self.fits = features, fits

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        if len(inputs) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        outputs: tuple[Tensor, ...] = self.features(inputs)
        return outputs


@pytest.mark.parametrize(("fits", "largest"), [(3, 2), (100, 4)])
def test_batches_are_as_large_as_memory_allows(
    accuracy: AccuracyCheck, features: ImageFeatures, fits: int, largest: int
) -> None:
    accelerated = CudaBackend(OutOfMemory(features, fits), 128, CPU, largest=4, half=True)
    accelerated.start(accuracy, "fp32")
    assert accelerated.largest == largest


def test_a_compiled_form_is_used_if_it_is_right(accuracy: AccuracyCheck, features: ImageFeatures) -> None:
    used: list[str] = []

    def compile_as(module: nn.Module, precision: str) -> Any:
        def run(inputs: Tensor) -> Any:
            used.append(precision)
            return module(inputs)

        return run

    def compile_wrongly(module: nn.Module, precision: str) -> Any:
        return lambda inputs: [part * 1.5 for part in module(inputs)]

    def fail(module: nn.Module, precision: str) -> Any:
        raise RuntimeError("no compiler")

    for way in (compile_as, compile_wrongly, fail):
        accelerated = CudaBackend(features, 128, CPU, largest=1, half=False)
        accelerated.start(accuracy, "fp32", way)
        (picture,) = images(1)
        (tensors,) = accelerated.encode([picture])
        plain = CudaBackend(features, 128, CPU, largest=1, half=False).encode([picture])[0]
        np.testing.assert_array_equal(tensors[NAMES[0]], plain[NAMES[0]])
    assert used


class Affine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        return (self.linear(inputs).relu(), inputs.sum(1))


@pytest.mark.slow
def test_compiled_packages_are_kept(tmp_path: Path) -> None:
    module = Affine().eval().requires_grad_(False)
    run = compile_cached(module, torch.randn(2, 8), SIZES[-1], "affine fp32", tmp_path)
    (package,) = tmp_path.iterdir()
    made = package.stat().st_mtime_ns
    again = compile_cached(module, torch.randn(3, 8), SIZES[-1], "affine fp32", tmp_path)
    assert package.stat().st_mtime_ns == made
    for count in (1, 2, 5, SIZES[-1]):
        inputs = torch.randn(count, 8)
        for way in (run, again):
            for got, wanted in zip(way(inputs), module(inputs), strict=True):
                torch.testing.assert_close(got, wanted)
    package.write_bytes(package.read_bytes()[:1000])
    repaired = compile_cached(module, torch.randn(2, 8), SIZES[-1], "affine fp32", tmp_path)
    torch.testing.assert_close(repaired(inputs)[0], module(inputs)[0])
