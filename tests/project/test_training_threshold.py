"""Where the demo model's masks end: what its loss asks for, and what is mended in weights that had another loss."""

import pytest
import torch

from training.demo import evaluate, threshold
from training.demo.batches import Batches
from training.demo.curriculum import Stage
from training.demo.decoder import decode, places
from training.demo.forward import encode
from training.demo.losses import mask_loss, overlap
from training.demo.network import Network, source
from training.demo.pack import Pack
from training.demo.prompts import Prompts

STAGE = Stage("photographs", 224, 2, 2, updates=0, rate=0.0, easy=0.0, real=1.0, corrections=0.0)


@pytest.mark.parametrize(("least", "most"), [(10, 80), (20, 200)])
def test_the_loss_of_a_model_that_is_unsure_is_least_at_the_best_mask(least: int, most: int) -> None:
    pixel = torch.arange(400)
    targets = (pixel < torch.arange(least, most)[:, None]).float()  # an object of any of these sizes, all as likely
    best = max(float(overlap(pixel < size, targets > 0.5).mean()) for size in range(least, most))
    logits = torch.zeros(1, 1, 400, requires_grad=True)
    optimiser = torch.optim.Adam([logits], 0.1)
    for _ in range(300):
        optimiser.zero_grad()
        mask_loss(logits, targets)[0].mean().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert float(overlap(logits[0] > 0, targets > 0.5).mean()) > best - 0.01


def test_a_lower_threshold_raises_single_masks_alone() -> None:
    batches = Batches(Pack.load(evaluate.SAMPLE, held_out=True), STAGE, seed=1)
    network = Network(STAGE.size)
    network.load(source().checkpoint)
    combination, off = threshold.constant(network, batches, 4)
    assert off < 0.15
    batch = batches[7]
    torch.manual_seed(0)
    prompts = Prompts(batch, STAGE.size)
    with torch.no_grad():
        features, place = encode(network, batch.images), places(network)
        before = decode(network, features, place, prompts.points, prompts.labels)
        threshold.lower(network, combination, 0.5)
        after = decode(network, features, place, prompts.points, prompts.labels)
    raised = (after.logits - before.logits)[:, 0][before.logits[:, 0].abs() < 2]
    assert float((raised - 0.5).square().mean().sqrt()) < 0.1
    assert torch.equal(after.logits[:, 1:], before.logits[:, 1:])
    assert torch.equal(after.iou, before.iou)
