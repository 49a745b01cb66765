"""Compiled models on disk: minutes to make, a moment to load."""

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)

Run = Callable[[Tensor], Sequence[Tensor]]


def compiled(module: nn.Module, inputs: Tensor, largest: int, identity: str, folder: Path) -> Run:
    """A module compiled ahead of time by Inductor, for batches of every size at once.

    Args:
        module: Takes one tensor, gives a tuple of tensors; sizes depend on the batch alone.
        inputs: An example of at least two, on the module's device.
        largest: Largest batch.
        identity: What the module is, weights and precision included.
        folder: Where packages are kept.

    Raises:
        Exception: It cannot be compiled; compilers raise many kinds.
    """
    device = torch.cuda.get_device_name(inputs.device) if inputs.device.type == "cuda" else "cpu"
    parts = "\0".join((identity, str(tuple(inputs.shape[1:])), str(largest), torch.__version__, device))
    path = folder / f"{hashlib.sha256(parts.encode()).hexdigest()}.pt2"
    if path.exists():
        try:
            return _load(path)
        except Exception as error:  # damaged, or its compiler's libraries are gone
            log.warning("compiling again what is kept in %s: %s", path, error)
    log.info("compiling a model for %s (once; takes minutes)", device)
    batch = torch.export.Dim("batch", min=1, max=max(2, largest))
    with torch.no_grad():
        exported = torch.export.export(module, (inputs,), dynamic_shapes=({0: batch},))
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{os.getpid()}.{path.name}")
        torch._inductor.aoti_compile_and_package(exported, package_path=str(partial))
    partial.replace(path)
    return _load(path)


def _load(path: Path) -> Run:
    package: Run = torch._inductor.aoti_load_package(str(path))
    return package
