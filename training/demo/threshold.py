"""Lowers the threshold of single masks, in the weights: what a longer training with another loss would do, in a minute.

    python -m training.demo.threshold --data demo-data.zip --by 0.5 --out lower.safetensors

Masks are where logits are above 0. Where the best masks for boxes and corrections are those above -0.5, since the loss
asked for more certainty than the best IoU does (`losses.INSIDE`), single masks' logits are to be higher by 0.5. The
three candidates of a click stay as they are.

A logit is the product of a pixel's features and of what the mask token asks for. Some combination of features is nearly
1 everywhere; least squares find it on photographs for training, and what the token asks for gets more of it.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from training.demo.batches import Batches
from training.demo.curriculum import STAGES, Stage
from training.demo.decoder import decode, places
from training.demo.export import export
from training.demo.forward import encode
from training.demo.network import Network, source
from training.demo.pack import Pack
from training.demo.prompts import Prompts

_PICTURES = Stage("", STAGES[-1].size, 1, 8, 0, 0.0, easy=0.0, real=1.0, corrections=0.0)
_UNDECIDED = 2.0  # only pixels whose logits are nearer to 0 matter


@torch.no_grad()
def constant(network: Network, batches: Batches, count: int) -> tuple[Tensor, float]:
    """The combination of a pixel's features that is nearest to 1 where single masks are undecided.

    Args:
        network: The weights, in fp32.
        batches: Pictures of the network's size.
        count: How many of the batches to look at.

    Returns:
        The combination (32, fp32); the root mean square of what it is off by.
    """
    products, sums, number = torch.zeros(32, 32, dtype=torch.float64), torch.zeros(32, dtype=torch.float64), 0
    place = places(network)
    for index in range(count):
        torch.manual_seed(index)
        batch = batches[index]
        prompts = Prompts(batch, network.size)
        decoded = decode(network, encode(network, batch.images), place, prompts.points, prompts.labels)
        features = decoded.pixels[decoded.logits[:, 0].abs() < _UNDECIDED].double()
        products += features.t() @ features
        sums += features.sum(0)
        number += len(features)
    found = torch.linalg.lstsq(products, sums).solution
    off = (found @ products @ found - 2 * found @ sums + number) / max(1, number)
    return found.float(), float(off.clamp(min=0).sqrt())


@torch.no_grad()
def lower(network: Network, combination: Tensor, by: float) -> None:
    """Raises the logits of single masks by so much, wherever `combination` of features is 1."""
    network.sam_mask_decoder.output_hypernetworks_mlps[0].layers[-1].bias += by * combination


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="file made by training.demo.pack")
    parser.add_argument("--weights", type=Path, help=".safetensors (default: the package's)")
    parser.add_argument("--by", type=float, required=True, help="how much lower the threshold is to be")
    parser.add_argument("--pictures", type=int, default=40, help="photographs to look at (default 40)")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    network = Network(_PICTURES.size).eval()
    network.load(arguments.weights or source().checkpoint)
    batches = Batches(Pack.load(arguments.data, held_out=False), _PICTURES, seed=1)
    combination, off = constant(network, batches, arguments.pictures)
    lower(network, combination, arguments.by)
    export(network, arguments.out)
    print(
        f"{arguments.out}: logits of single masks are {arguments.by} higher, give or take {off * abs(arguments.by):.3f}"
    )


if __name__ == "__main__":
    main()
