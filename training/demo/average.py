"""Writes the mean of several weights: those of one line of training, such as its stages', often do better together.

python -m training.demo.average runs/demo/large.safetensors runs/demo/full.safetensors --out demo.safetensors
"""

import argparse
from pathlib import Path

import torch

from training.demo.curriculum import STAGES
from training.demo.export import export
from training.demo.network import Network


def mean(files: list[Path]) -> Network:
    """The mean of the weights of .safetensors files, each counting the same.

    Raises:
        ValueError: One file's positional code is another: runs from other random weights have nothing in common.
    """
    networks: list[Network] = []
    for file in files:
        network = Network(STAGES[-1].size)
        network.load(file)
        if networks and not torch.equal(network.fourier, networks[0].fourier):
            raise ValueError(f"{file} and {files[0]} began from different random weights; their mean is meaningless")
        networks.append(network)
    with torch.no_grad():
        for parameters in zip(*(network.parameters() for network in networks), strict=True):
            parameters[0].copy_(torch.stack(parameters).mean(0))
    return networks[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, nargs="+", help=".safetensors files; one given twice counts twice")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    export(mean(arguments.weights), arguments.out)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
