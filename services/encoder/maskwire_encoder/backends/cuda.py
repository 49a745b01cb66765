"""Encodes batches on a CUDA device, which receives uint8 pixels and returns the values to be stored.

Preprocessing, the model and the conversion to the stored layout run on the device. On a CPU the same code runs without
streams and graphs, which is how it is tested.
"""

import copy
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from maskwire_core.models.registry import ModelError
from numpy.typing import NDArray
from torch import Tensor, nn

from maskwire_encoder.backends.accuracy_check import AccuracyCheck
from maskwire_encoder.backends.aot_cache import Forward
from maskwire_encoder.backends.device import Tensors
from maskwire_encoder.backends.features import NAMES
from maskwire_encoder.image_input.preprocessing import preprocess

log = logging.getLogger(__name__)

T = TypeVar("T")

SIZES = (1, 2, 4, 8, 16, 32, 64)
"""Batch sizes. A batch is padded to the next of these, so that few graphs have to be recorded."""

PRECISIONS = ("fp16", "bf16", "tf32", "fp32")
"""Fastest first; fp16 comes before bf16, which takes as long and has fewer mantissa bits."""

_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def padded_size(count: int, largest: int) -> int:
    """The size that a batch of `count` images is padded to, at most `largest`."""
    return min(size for size in (*(s for s in SIZES if s < largest), largest) if size >= count)


class InPrecision(nn.Module):
    """Runs a module in one of `PRECISIONS`: under autocast (fp16, bf16), with TF32 products, or in exact fp32.

    Args:
        module: A module in fp32. For fp16 and bf16 it is copied and its weights are converted once, which autocast
            would do in each forward pass.
        precision: One of `PRECISIONS`.
        device: The module's device.
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
        # cuDNN's convolutions use TF32 by default, matrix products do not: set both.
        torch.backends.cuda.matmul.allow_tf32 = self._tf32
        torch.backends.cudnn.allow_tf32 = self._tf32
        with torch.autocast(self._device_type, self._dtype, enabled=self._dtype is not None):
            outputs: tuple[Tensor, ...] = self.module(inputs)
        return outputs


_launching = threading.Lock()
"""Held while a batch is launched: batches start in order, and the precision of products is a process-wide setting."""


class CudaBackend:
    """Encodes batches. After `start`, two threads may call `encode`; their batches overlap.

    Args:
        features: `ImageFeatures` on `device`, in fp32.
        size: Side of the model's square input in pixels.
        device: Where the model runs.
        largest: Largest batch; `start` lowers it to what fits the device's memory.
        half: Whether embeddings are stored as fp16, so that the device rounds them.

    Attributes:
        precision: One of `PRECISIONS`.
        largest: Largest batch.
    """

    def __init__(self, features: nn.Module, size: int, device: torch.device, largest: int, half: bool) -> None:
        self.precision = "fp32"
        self.largest = largest
        self._exact = features
        self._features: Forward = InPrecision(features, self.precision, device)
        self._size = size
        self._device = device
        self._half = half
        self._graphs: dict[int, Forward] = {}  # by batch size
        cuda = device.type == "cuda"
        self._pool = torch.cuda.graph_pool_handle() if cuda else None
        self._upload, self._compute, self._download = (
            torch.cuda.Stream(device) if cuda else None  # type: ignore[no-untyped-call]
            for _ in range(3)
        )

    def start(
        self, accuracy: AccuracyCheck, precision: str, compile_as: Callable[[nn.Module, str], Forward] | None = None
    ) -> None:
        """Chooses the precision, finds the largest batch that fits and records CUDA graphs, checking each for accuracy.

        Args:
            accuracy: The model's accuracy check.
            precision: One of `PRECISIONS`, or "auto" for the fastest whose masks are those of fp32.
            compile_as: Compiles a module that runs in the given precision; None to run it uncompiled.

        Raises:
            torch.OutOfMemoryError: A single image does not fit the device's memory.
            ModelError: The embedding of a single image has NaN or infinity.
        """
        module = self._choose(PRECISIONS if precision == "auto" else (precision,), accuracy)
        if compile_as is not None:
            self._compile(module, compile_as, accuracy)
        fitting = 0
        for size in sorted({padded_size(count, self.largest) for count in range(1, self.largest + 1)}):
            inputs = accuracy.inputs[torch.arange(size) % len(accuracy.inputs)]
            try:
                deviation = accuracy.check(self._on_compute_stream(self._features, inputs))
            except torch.OutOfMemoryError:
                break
            log.info("batches of %d in %s: %s", size, self.precision, deviation)
            if not fitting and not deviation.finite:
                raise ModelError(
                    f"in {self.precision}, the model gives NaN or infinity for a synthetic image; "
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
        """Copies pixels (HxWx3, RGB) to pinned memory, from which the device can read."""
        pixels = torch.from_numpy(np.ascontiguousarray(rgb))
        return pixels.pin_memory() if self._device.type == "cuda" else pixels.clone()

    @torch.inference_mode()
    def encode(self, images: Sequence[Tensor]) -> list[Tensors]:
        """Encodes images of any sizes.

        Args:
            images: From `prepare`: HxWx3, uint8.

        Returns:
            For each image, the tensors named `NAMES` in the stored layout, fp16 or fp32.
        """
        with _launching:
            pixels = self._start_upload(images)
            outputs = self._on_compute_stream(self._forward, pixels)
            downloaded, done = self._start_download(outputs)
        if done is not None:
            done.synchronize()  # while another thread launches the next batch
        return [
            {name: tensor[index].numpy() for name, tensor in zip(NAMES, downloaded, strict=True)}
            for index in range(len(images))
        ]

    def _start_upload(self, images: Sequence[Tensor]) -> list[Tensor]:
        if self._upload is None or self._compute is None:
            return list(images)
        with torch.cuda.stream(self._upload):
            sent = [image.to(self._device, non_blocking=True) for image in images]
        self._compute.wait_stream(self._upload)
        for image in sent:
            image.record_stream(self._compute)
        return sent

    def _forward(self, pixels: Sequence[Tensor]) -> list[Tensor]:
        """Preprocesses and encodes images. Returns tensors of their own memory, in the dtype that is stored."""
        inputs = torch.cat([preprocess(image[None], self._size) for image in pixels])
        missing = padded_size(len(inputs), self.largest) - len(inputs)
        if missing > 0:
            inputs = torch.cat([inputs, inputs[-1:].expand(missing, -1, -1, -1)])
        run = self._graphs.get(len(inputs), self._features)
        outputs = [tensor[: len(pixels)] for tensor in run(inputs)]
        if self._half:
            return [tensor.half() for tensor in outputs]  # overflow gives infinity, which `pack` refuses
        return [tensor.float().clone() for tensor in outputs]

    def _start_download(self, outputs: Sequence[Tensor]) -> tuple[Sequence[Tensor], Any]:
        """Starts copying to pinned memory. Returns the copies, and the event of their completion, if there is one."""
        if self._download is None or self._compute is None:
            return outputs, None
        self._download.wait_stream(self._compute)
        with torch.cuda.stream(self._download):
            downloaded = [torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for tensor in outputs]
            for here, there in zip(downloaded, outputs, strict=True):
                here.copy_(there, non_blocking=True)
                there.record_stream(self._download)
            done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            done.record(self._download)
        return downloaded, done

    @torch.inference_mode()
    def _on_compute_stream(self, run: Callable[[T], Sequence[Tensor]], inputs: T) -> Sequence[Tensor]:
        """Runs a function on the compute stream, after the work queued on the current stream, which then waits."""
        if self._compute is None:
            return run(inputs)
        outside = torch.cuda.current_stream(self._device)
        self._compute.wait_stream(outside)
        with torch.cuda.stream(self._compute):
            outputs = run(inputs)
        outside.wait_stream(self._compute)
        return outputs

    def _choose(self, precisions: Sequence[str], accuracy: AccuracyCheck) -> InPrecision:
        """Uses the first precision whose masks are those of fp32, or else the last one."""
        for precision in precisions:
            self.precision = precision
            self._features = module = InPrecision(self._exact, precision, self._device)
            if precision == precisions[-1]:
                break
            outputs = [self._on_compute_stream(module, image[None]) for image in accuracy.inputs]
            deviation = accuracy.check([torch.cat(parts) for parts in zip(*outputs, strict=True)])
            log.info("%s: %s", precision, deviation)
            if deviation.acceptable:
                break
        return module

    def _compile(
        self, module: InPrecision, compile_as: Callable[[nn.Module, str], Forward], accuracy: AccuracyCheck
    ) -> None:
        """Uses the compiled module, unless it cannot be compiled or is inaccurate."""
        try:
            compiled = compile_as(module, self.precision)
            deviation = accuracy.check(self._on_compute_stream(compiled, accuracy.inputs))
            if deviation.acceptable:
                self._features = compiled
            else:
                log.warning("the compiled model changes masks (%s) and is not used", deviation)
        except Exception as error:  # compilers raise exceptions of many types
            log.warning("the model is not compiled: %s", str(error).splitlines()[0])

    def _record(self, inputs: Tensor, accuracy: AccuracyCheck) -> None:
        """Records the graph of a batch size, unless it cannot be recorded or is inaccurate."""
        static_inputs = inputs.clone()
        try:
            graph = torch.cuda.CUDAGraph()
            # Graphs share a memory pool: `_forward` copies the outputs of one before the next runs on the same stream.
            with torch.inference_mode(), torch.cuda.graph(graph, pool=self._pool, stream=self._compute):
                static_outputs = self._features(static_inputs)

            def replay(inputs: Tensor) -> Sequence[Tensor]:
                static_inputs.copy_(inputs)
                graph.replay()
                return static_outputs

            deviation = accuracy.check(self._on_compute_stream(replay, inputs))
            if deviation.acceptable:
                self._graphs[len(inputs)] = replay
            else:
                log.warning("the graph for batches of %d is wrong (%s) and not used", len(inputs), deviation)
        except RuntimeError as error:
            log.warning("no graph for batches of %d: %s", len(inputs), str(error).splitlines()[0])
