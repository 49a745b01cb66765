"""Training what makes and chooses a click's candidates, alone."""

import torch

from training.demo import evaluate
from training.demo.batches import Batches
from training.demo.candidates import freeze, objective
from training.demo.curriculum import Stage
from training.demo.decoder import decode, places
from training.demo.forward import encode
from training.demo.network import Network, source
from training.demo.objective import THOUGHT_BEST, candidates_loss
from training.demo.pack import Pack
from training.demo.prompts import Prompts

STAGE = Stage("candidates", 224, 2, 4, updates=0, rate=0.0, easy=0.0, real=1.0, corrections=0.0)


def test_single_masks_stay_as_they_are() -> None:
    batch = Batches(Pack.load(evaluate.SAMPLE, held_out=True), STAGE, seed=2)[0]
    network = Network(STAGE.size)
    network.load(source().checkpoint)
    freeze(network)
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]

    @torch.no_grad()
    def logits() -> torch.Tensor:
        torch.manual_seed(1)
        prompts = Prompts(batch, STAGE.size)
        return decode(network, encode(network, batch.images), places(network), prompts.points, prompts.labels).logits

    before, losses = logits(), []
    optimiser = torch.optim.Adam(parameters, 1e-3)
    for _ in range(8):
        torch.manual_seed(1)
        optimiser.zero_grad()
        loss, _ = objective(network, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
    after = logits()
    assert losses[-1] < losses[0]
    assert torch.equal(before[:, 0], after[:, 0])
    assert not torch.isclose(before[:, 1:], after[:, 1:]).all()
    assert all(parameter.grad is None for parameter in network.parameters() if not parameter.requires_grad)


def test_the_best_candidate_counts_and_the_one_that_is_served() -> None:
    losses = torch.tensor([[0.1, 3.0, 1.0, 2.0], [9.0, 4.0, 4.0, 5.0]])
    expected = torch.tensor([1 + 2 * THOUGHT_BEST, 4.0])
    assert torch.allclose(candidates_loss(losses, torch.tensor([1, 2])), expected)
