"""Batches on a CUDA device: uint8 pixels up, preprocessing, model and packing there, stored values down.

All of it runs on a CPU too, without streams and graphs, which is how it is tested.
"""

import copy
import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from maskwire_core.models.registry import ModelError
from numpy.typing import NDArray
from torch import Tensor, nn

from maskwire_encoder.backends.accuracy_check import AccuracyCheck, Deviation
from maskwire_encoder.backends.aot_cache import Run
from maskwire_encoder.backends.features import NAMES
from maskwire_encoder.image_input.preprocessing import preprocess

log = logging.getLogger(__name__)

SIZES = (1, 2, 4, 8, 16, 32, 64)
"""Batches are padded to the next of these, so that few shapes have to be made ready."""

PRECISIONS = ("fp16", "bf16", "tf32", "fp32")
"""From the fastest on; fp16 before bf16, which takes as long and is coarser."""

_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def padded_size(count: int, largest: int) -> int:
    """The size of the batch that `count` images are padded to."""
    return min(size for size in (*(s for s in SIZES if s < largest), largest) if size >= count)


class InPrecision(nn.Module):
    """Runs a module's products in fp16 or bf16 where autocast has them so, in fp32 by tensor cores (TF32), or in exact
    fp32.

    Args:
        module: In fp32; for fp16 and bf16 it is copied, with weights that need no conversion each time.
        precision: One of PRECISIONS.
        device: Where it is.
    """

    def __init__(self, module: nn.Module, precision: str, device: torch.device) -> None:
        super().__init__()
        self._tf32 = precision == "tf32"
        self._dtype = _DTYPES.get(precision)
        self._device_type = device.type
        self.module = module
        if self._dtype is not None:
            self.module = copy.deepcopy(module)
            for part in self.module.modules():
                if isinstance(part, nn.Linear | nn.Conv2d):
                    part.to(self._dtype)

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        # Both kinds of product are set, since cuDNN's convolutions use TF32 where nobody says.
        torch.backends.cuda.matmul.allow_tf32 = self._tf32
        torch.backends.cudnn.allow_tf32 = self._tf32
        with torch.autocast(self._device_type, self._dtype, enabled=self._dtype is not None):
            outputs: tuple[Tensor, ...] = self.module(inputs)
        return outputs


_turn = threading.Lock()
"""Held while a batch is launched: batches begin in order, and precision is a setting of the whole process."""


class Accelerated:
    """Encodes batches. `start` makes it ready; after that it may be called from two threads, whose batches overlap.

    Args:
        features: `ImageFeatures` on its device, in fp32.
        size: Side of the model's square input in pixels.
        device: Where the model is.
        largest: Largest batch; `start` lowers it to what fits.
        half: Whether values are stored as fp16, and so are rounded on the device.

    Attributes:
        precision: One of PRECISIONS.
        largest: Largest batch.
    """

    def __init__(self, features: nn.Module, size: int, device: torch.device, largest: int, half: bool) -> None:
        self.precision = "fp32"
        self.largest = largest
        self._exact = features
        self._plain = InPrecision(features, self.precision, device)
        self._features: Run = self._plain
        self._size = size
        self._device = device
        self._half = half
        self._graphs: dict[int, tuple[Any, Tensor, Sequence[Tensor]]] = {}
        cuda = device.type == "cuda"
        self._pool = torch.cuda.graph_pool_handle() if cuda else None
        self._upload, self._compute, self._download = (
            torch.cuda.Stream(device) if cuda else None  # type: ignore[no-untyped-call]
            for _ in range(3)
        )

    def start(
        self, accuracy: AccuracyCheck, precision: str, compile_as: Callable[[nn.Module, str], Run] | None = None
    ) -> None:
        """Chooses the precision, finds the largest batch that fits and records CUDA graphs, checking each for accuracy.

        Args:
            accuracy: The accuracy check of this model.
            precision: One of PRECISIONS, or "auto" for the fastest whose masks are those of fp32.
            compile_as: Makes the compiled form of a module in a precision; None leaves it as it is.

        Raises:
            torch.OutOfMemoryError: There is no memory for a single image.
            ModelError: What the model gives for a single image is NaN or infinite.
        """
        if precision == "auto":
            self._choose(accuracy)
        else:
            self._use(precision)
        if compile_as is not None:
            self._compile(compile_as, accuracy)
        fitting = 0
        for size in sorted({padded_size(count, self.largest) for count in range(1, self.largest + 1)}):
            inputs = accuracy.inputs[torch.arange(size) % len(accuracy.inputs)]
            try:
                deviation = accuracy.check(self._on_compute(partial(self._eager, inputs)))
            except torch.OutOfMemoryError:
                break
            log.info("batches of %d in %s: %s", size, self.precision, deviation)
            if not fitting and not deviation.finite:
                raise ModelError(
                    f"in {self.precision}, the model gives NaN or infinity for a made picture; "
                    + ("serve another checkpoint" if self.precision == "fp32" else "use --precision auto or fp32")
                )
            if fitting and not deviation.acceptable:
                log.warning("batches of %d change masks (%s); using %d at most", size, deviation, fitting)
                break
            fitting = size
            if self._device.type == "cuda":
                self._record(inputs, accuracy)
        if not fitting:
            raise torch.OutOfMemoryError(f"{self._device} has no memory for a single image")
        self.largest = fitting

    def prepare(self, rgb: NDArray[np.uint8]) -> Tensor:
        """Pixels (HxWx3, RGB) as `encode` takes them: the same, in memory that the device can read directly."""
        pixels = torch.from_numpy(np.ascontiguousarray(rgb))
        return pixels.pin_memory() if self._device.type == "cuda" else pixels

    @torch.inference_mode()
    def encode(self, images: Sequence[Tensor]) -> list[dict[str, NDArray[Any]]]:
        """Encodes HxWx3 pixels, uint8, of any sizes.

        Returns:
            For each, tensors of the decoder's names in the stored layout, fp16 or fp32.
        """
        with _turn:
            pixels = self._sent(images)
            outputs = self._on_compute(partial(self._packed, pixels))
            arrived, done = self._received(outputs)
        if done is not None:
            done.synchronize()  # meanwhile the next batch is launched from another thread
        return [
            {name: tensor[index].numpy() for name, tensor in zip(NAMES, arrived, strict=True)}
            for index in range(len(images))
        ]

    def _sent(self, images: Sequence[Tensor]) -> list[Tensor]:
        if self._upload is None or self._compute is None:
            return list(images)
        with torch.cuda.stream(self._upload):
            sent = [image.to(self._device, non_blocking=True) for image in images]
        self._compute.wait_stream(self._upload)
        for image in sent:
            image.record_stream(self._compute)
        return sent

    def _packed(self, pixels: Sequence[Tensor]) -> list[Tensor]:
        inputs = torch.cat([preprocess(image[None], self._size) for image in pixels])
        missing = padded_size(len(inputs), self.largest) - len(inputs)
        if missing > 0:
            inputs = torch.cat([inputs, inputs[-1:].expand(missing, -1, -1, -1)])
        outputs = [tensor[: len(pixels)] for tensor in self._run(inputs)]
        if self._half:
            return [tensor.half() for tensor in outputs]  # what is too large becomes infinite, which is noticed
        return [tensor.float().clone() for tensor in outputs]

    def _received(self, outputs: Sequence[Tensor]) -> tuple[Sequence[Tensor], Any]:
        if self._download is None or self._compute is None:
            return outputs, None
        self._download.wait_stream(self._compute)
        with torch.cuda.stream(self._download):
            arrived = [torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for tensor in outputs]
            for here, there in zip(arrived, outputs, strict=True):
                here.copy_(there, non_blocking=True)
                there.record_stream(self._download)
            done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            done.record(self._download)
        return arrived, done

    def _run(self, inputs: Tensor) -> Sequence[Tensor]:
        recorded = self._graphs.get(len(inputs))
        if recorded is None:
            return self._eager(inputs)
        graph, static_inputs, static_outputs = recorded
        static_inputs.copy_(inputs)
        graph.replay()
        return static_outputs

    @torch.inference_mode()
    def _eager(self, inputs: Tensor) -> Sequence[Tensor]:
        return self._features(inputs)

    def _on_compute(self, work: Callable[[], Sequence[Tensor]]) -> Sequence[Tensor]:
        if self._compute is None:
            return work()
        outside = torch.cuda.current_stream(self._device)
        self._compute.wait_stream(outside)
        with torch.cuda.stream(self._compute):
            outputs = work()
        outside.wait_stream(self._compute)
        return outputs

    def _use(self, precision: str) -> None:
        self.precision = precision
        self._plain = self._features = InPrecision(self._exact, precision, self._device)

    def _compile(self, compile_as: Callable[[nn.Module, str], Run], accuracy: AccuracyCheck) -> None:
        """Uses the compiled form, unless it cannot be made or is wrong."""
        try:
            self._features = compile_as(self._plain, self.precision)
            deviation = accuracy.check(self._on_compute(partial(self._eager, accuracy.inputs)))
            if deviation.acceptable:
                return
            log.warning("the compiled model changes masks (%s) and is not used", deviation)
        except Exception as error:  # compilers raise many kinds; the model works without
            log.warning("the model is not compiled: %s", str(error).splitlines()[0])
        self._features = self._plain

    def _choose(self, accuracy: AccuracyCheck) -> None:
        """Uses the fastest precision whose masks are those of fp32."""
        for precision in PRECISIONS:
            self._use(precision)
            if precision == "fp32":
                return
            outputs = [self._on_compute(partial(self._eager, image[None])) for image in accuracy.inputs]
            deviation = accuracy.check([torch.cat(parts) for parts in zip(*outputs, strict=True)])
            log.info("%s: %s", precision, deviation)
            if deviation.acceptable:
                return

    def _record(self, inputs: Tensor, accuracy: AccuracyCheck) -> None:
        """Records a graph for a batch size. A graph that cannot be recorded, or is wrong, is not used."""
        static_inputs = inputs.clone()
        try:
            graph = torch.cuda.CUDAGraph()
            # One pool for all: a graph's outputs are packed before the next one runs, on the same stream.
            with torch.inference_mode(), torch.cuda.graph(graph, pool=self._pool, stream=self._compute):
                static_outputs = self._eager(static_inputs)
            self._graphs[len(inputs)] = graph, static_inputs, static_outputs
            deviation: Deviation = accuracy.check(self._on_compute(partial(self._run, inputs)))
            if deviation.acceptable:
                return
            log.warning("the graph for batches of %d is wrong (%s) and not used", len(inputs), deviation)
        except RuntimeError as error:
            log.warning("no graph for batches of %d: %s", len(inputs), str(error).splitlines()[0])
        self._graphs.pop(len(inputs), None)
