"""Trains what makes a click's three candidates and chooses among them, and leaves single masks exactly as they are.

    python -m training.demo.candidates --data demo-data.zip --out better.safetensors

Longer training of all weights makes clicks better and corrections worse, or the other way round. Here only the last
layers of candidates change, the three networks that say what a candidate is made of and the one that predicts IoU. So
boxes and corrections stay bit by bit what they were, and no gradient goes through the rest: an update costs a fifth.
"""

import argparse
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor

from training.demo.batches import Batch, Batches
from training.demo.curriculum import STAGES, Stage
from training.demo.decoder import decode, places
from training.demo.export import export
from training.demo.forward import encode
from training.demo.loop import printer, run
from training.demo.losses import mask_loss
from training.demo.network import Network, source
from training.demo.objective import candidates_loss
from training.demo.pack import Pack
from training.demo.prompts import Prompts
from training.demo.state import State


def freeze(network: Network) -> None:
    """Freezes all parameters but those of candidates."""
    decoder = network.sam_mask_decoder
    network.requires_grad_(False)
    for part in (*decoder.output_hypernetworks_mlps[1:], decoder.iou_prediction_head):
        part.requires_grad_(True)


def objective(network: Network, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
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
    return loss, {"click": iou[torch.arange(len(iou)), served][clicked & ~prompts.nothing]}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="file made by training.demo.pack")
    parser.add_argument("--weights", type=Path, help=".safetensors to begin from (default: the package's)")
    parser.add_argument("--updates", type=int, default=600, help="how many, of two pictures each (default 600)")
    parser.add_argument("--rate", type=float, default=5e-4, help="learning rate of AdamW (default 5e-4)")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    stage = Stage("candidates", STAGES[-1].size, 2, 8, options.updates, options.rate, 0.05, 0.75, corrections=0.0)
    network = Network(stage.size).train()
    network.load(options.weights or source().checkpoint)
    freeze(network)
    state = State.of(network, stage.name, torch.device("cpu"))
    batches = Batches(Pack.load(options.data, held_out=False), stage, seed=1)
    # Not `precision`: what is frozen stays fp32, and in one product both must be of one type.
    run(state, network, objective, batches, nullcontext(), 0, stage.updates, torch.float32, printer(stage))
    state.attach(network, state.average)
    export(network, options.out)


if __name__ == "__main__":
    main()
