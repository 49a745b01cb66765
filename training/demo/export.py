"""Writes trained weights as the package ships them: safetensors, fp16, SAM2Base's names.

python -m training.demo.export runs/demo/checkpoint.pt services/encoder/maskwire_encoder/weights/demo.safetensors

With --mean-with FILE it writes the mean of both: runs that went on from one another often do better together.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file

from training.demo.curriculum import STAGES
from training.demo.network import Network
from training.demo.state import State

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


def average(network: Network, other: Path) -> None:
    """Moves a network's weights halfway to those of a file.

    Raises:
        ValueError: The file's positional code is another, so that the two have nothing in common.
    """
    theirs = Network(network.size)
    theirs.load(other)
    if not torch.equal(network.fourier, theirs.fourier):
        raise ValueError(f"{other} comes from other random weights; only runs with the same beginning can be averaged")
    with torch.no_grad():
        for mine, their in zip(network.parameters(), theirs.parameters(), strict=True):
            mine.lerp_(their, 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--mean-with", type=Path, metavar="FILE", help=".safetensors of a run with the same beginning")
    arguments = parser.parse_args()
    state = State.load(arguments.checkpoint, torch.device("cpu"))
    network = state.network(STAGES[-1].size)
    if arguments.mean_with:
        average(network, arguments.mean_with)
    export(network, arguments.out)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
