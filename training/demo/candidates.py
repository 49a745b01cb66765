"""Trains what makes a click's three candidates and chooses among them, and leaves single masks exactly as they are.

    python -m training.demo.candidates --data demo-data.zip --out better.safetensors

Longer training of all weights makes clicks better and corrections worse, or the other way round. Here only the last
layers of candidates change, the three networks that say what a candidate is made of and the one that predicts IoU. So
boxes and corrections stay bit by bit what they were, and no gradient goes through the rest: an update costs a fifth.
"""

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from training.demo.batches import Batch, Batches
from training.demo.curriculum import STAGES, Stage
from training.demo.decoder import decode, places
from training.demo.export import export
from training.demo.forward import encode
from training.demo.loop import rate
from training.demo.losses import mask_loss
from training.demo.network import Network, source
from training.demo.objective import candidates_loss
from training.demo.pack import Pack
from training.demo.prompts import Prompts

_AVERAGED = 0.98  # memory of the average of the weights


def trained(network: Network) -> list[nn.Parameter]:
    """The parameters of candidates; all others are frozen."""
    decoder = network.sam_mask_decoder
    parts = (*decoder.output_hypernetworks_mlps[1:], decoder.iou_prediction_head)
    network.requires_grad_(False)
    return [parameter for part in parts for parameter in part.requires_grad_(True).parameters()]


def loss_of(network: Network, batch: Batch) -> tuple[Tensor, Tensor]:
    """Returns the loss of the candidates of first clicks and of all predicted IoUs; the IoU that each click reached."""
    with torch.no_grad():
        features, place = encode(network, batch.images), places(network)
    prompts = Prompts(batch, network.size)
    decoded = decode(network, features, place, prompts.points, prompts.labels)
    losses, iou = mask_loss(decoded.logits, batch.targets)
    served = 1 + decoded.iou[:, 1:].detach().argmax(1)
    clicked = ~prompts.boxed
    loss = (candidates_loss(losses, served) * clicked).sum() / clicked.sum().clamp(min=1)
    loss = loss + 3 * (decoded.iou - iou).square().mean()
    return loss, iou[torch.arange(len(iou)), served][clicked & ~prompts.nothing]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="file made by training.demo.pack")
    parser.add_argument("--weights", type=Path, help=".safetensors to begin from (default: the package's)")
    parser.add_argument("--updates", type=int, default=600, help="how many, of two pictures each (default 600)")
    parser.add_argument("--rate", type=float, default=5e-4, help="learning rate of AdamW (default 5e-4)")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    stage = Stage("candidates", STAGES[-1].size, 2, 8, arguments.updates, arguments.rate, 0.05, 0.75, corrections=0.0)
    network = Network(stage.size).train()
    network.load(arguments.weights or source().checkpoint)
    parameters = trained(network)
    average = [parameter.detach().clone() for parameter in parameters]
    optimiser = torch.optim.AdamW(parameters, stage.rate, (0.9, 0.98), weight_decay=0.02)
    batches = Batches(Pack.load(arguments.data, held_out=False), stage, seed=1)
    reached: list[float] = []
    printed = time.monotonic()
    for number in range(stage.updates):
        torch.manual_seed(number)
        optimiser.param_groups[0]["lr"] = rate(stage, number)
        optimiser.zero_grad()
        loss, clicks = loss_of(network, batches[number])
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1)
        optimiser.step()
        reached += clicks.tolist()
        for mean, parameter in zip(average, parameters, strict=True):
            mean.lerp_(parameter.detach(), 1 - min(_AVERAGED, (1 + number) / (10 + number)))
        if time.monotonic() - printed > 30 or number + 1 == stage.updates:
            printed = time.monotonic()
            latest = reached[-500:]
            print(f"{number + 1} of {stage.updates} updates: click {sum(latest) / len(latest):.3f}", flush=True)
    with torch.no_grad():
        for mean, parameter in zip(average, parameters, strict=True):
            parameter.copy_(mean)
    export(network, arguments.out)


if __name__ == "__main__":
    main()
