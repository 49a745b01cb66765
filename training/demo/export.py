"""Writes trained weights as the package ships them: safetensors, fp16, SAM2Base's names."""

from pathlib import Path

from safetensors.torch import save_file

from training.demo.curriculum import STAGES
from training.demo.network import Network

LARGEST_BYTES = 20_000_000


def export(network: Network, path: Path) -> None:
    """Writes a network's weights.

    Raises:
        ValueError: They exceed fp16's range, or the file would be over 20 MB.
    """
    tensors = {name: tensor.detach().half().contiguous() for name, tensor in network.state_dict().items()}
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise ValueError(f"weights beyond fp16, such as {broken[0]}: training has diverged")
    partial = path.with_suffix(".part")
    save_file(tensors, partial, {"architecture": "SAM 2.1, demo trunk", "image_size": str(STAGES[-1].size)})
    if partial.stat().st_size > LARGEST_BYTES:
        raise ValueError(f"{partial.stat().st_size} bytes are too many to be in the package")
    partial.replace(path)
