"""Models compiled ahead of time, kept on disk: they take minutes to compile and a moment to load."""

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)

Forward = Callable[[Tensor], Sequence[Tensor]]
"""A model's forward pass."""


def compile_cached(module: nn.Module, inputs: Tensor, largest: int, identity: str, folder: Path) -> Forward:
    """Compiles a module with Inductor, for batches of any size, or loads the compiled package if there is one.

    Args:
        module: Takes one tensor and returns a tuple of tensors, whose shapes depend on the batch size alone.
        inputs: Example inputs, a batch of two or more, on the module's device.
        largest: Largest batch.
        identity: Identifies the module, its weights and its precision.
        folder: Folder of the compiled packages.

    Raises:
        Exception: The module cannot be compiled; compilers raise exceptions of many types.
    """
    device = torch.cuda.get_device_name(inputs.device) if inputs.device.type == "cuda" else "cpu"
    parts = "\0".join((identity, str(tuple(inputs.shape[1:])), str(largest), torch.__version__, device))
    path = folder / f"{hashlib.sha256(parts.encode()).hexdigest()}.pt2"
    if path.exists():
        try:
            return _load(path)
        except Exception as error:  # the file is damaged, or libraries that it was linked with are gone
            log.warning("cannot load %s, compiling again: %s", path, error)
    log.info("compiling a model for %s (once; takes minutes)", device)
    batch = torch.export.Dim("batch", min=1, max=max(2, largest))
    with torch.no_grad():
        exported = torch.export.export(module, (inputs,), dynamic_shapes=({0: batch},))
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{os.getpid()}.{path.name}")
        torch._inductor.aoti_compile_and_package(exported, package_path=str(partial))
    partial.replace(path)
    return _load(path)


def _load(path: Path) -> Forward:
    package: Forward = torch._inductor.aoti_load_package(str(path))
    return package
