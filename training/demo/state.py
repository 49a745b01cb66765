"""What training changes: weights, their average and the optimiser's moments, as flat vectors that processes share."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from training.demo.network import Network

_AVERAGED_EVERY, _LONGEST_MEMORY = 4, 0.998


class State:
    """Weights and all that belongs to them.

    Attributes:
        stage: Name of the stage of the curriculum.
        weights: All parameters that are trained, fp32.
        average: Their exponential moving average.
        fourier: `Network.fourier`, which is not trained.
        counters: Updates of this stage that were made, and batches that were taken.
    """

    def __init__(self, stage: str, weights: Tensor, fourier: Tensor) -> None:
        self.stage, self.fourier = stage, fourier
        self.weights, self.average = weights, weights.clone()
        self._first, self._second = torch.zeros_like(weights), torch.zeros_like(weights)
        self._moments = torch.zeros((), device=weights.device)  # updates that the moments saw
        self.counters = torch.zeros(2, dtype=torch.long)

    @classmethod
    def of(cls, network: Network, stage: str, device: torch.device) -> "State":
        """The weights of a network's parameters that need a gradient, at the beginning of a stage."""
        weights = torch.cat([parameter.detach().flatten() for parameter in _trained(network)]).float()
        return cls(stage, weights.to(device), network.fourier.clone().to(device))

    def network(self, size: int) -> Network:
        """The averaged weights, where all are trained, as a network, on the CPU."""
        network = Network(size)
        self.attach(network, self.average.clone().cpu())
        return network

    def attach(self, network: Network, weights: Tensor, gradients: Tensor | None = None) -> None:
        """Makes a network's parameters that need a gradient, and the gradients, views of flat vectors of any dtype."""
        network.fourier.copy_(self.fourier)
        offset = 0
        for parameter in _trained(network):
            part = slice(offset, offset + parameter.numel())
            parameter.data = weights[part].view(parameter.shape)
            if gradients is not None:
                parameter.grad = gradients[part].view(parameter.shape)
            offset += parameter.numel()

    @property
    def updates(self) -> int:
        return int(self.counters[0])

    def take(self) -> int:
        """The number of the next batch."""
        number = int(self.counters[1])
        self.counters[1] += 1
        return number

    def share(self) -> None:
        """Moves everything to memory that forked processes share."""
        for tensor in (self.weights, self.average, self._first, self._second, self._moments, self.counters):
            tensor.share_memory_()

    def next_stage(self, stage: str) -> None:
        """Starts another stage from the averaged weights, which are better than the last ones; the moments stay."""
        self.stage = stage
        self.weights.copy_(self.average)
        self.counters.zero_()

    def update(self, gradient: Tensor, rate: float) -> None:
        """One step of AdamW, and now and then one of the average."""
        adamw(
            [self.weights],
            [gradient],
            [self._first],
            [self._second],
            [],
            [self._moments],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.98,
            lr=rate,
            weight_decay=0.02,
            eps=1e-8,
            maximize=False,
        )
        updates = self.updates
        if updates % _AVERAGED_EVERY == 0:
            memory = min(_LONGEST_MEMORY, (1 + updates) / (10 + updates))
            self.average.lerp_(self.weights, 1 - memory**_AVERAGED_EVERY)
        self.counters[0] += 1

    def save(self, path: Path) -> None:
        """Writes a checkpoint; whoever reads it meanwhile finds the one before."""
        partial = path.with_suffix(".part")
        torch.save(vars(self), partial)
        partial.replace(path)

    @classmethod
    def load(cls, path: Path, device: torch.device) -> "State":
        """Reads a checkpoint. Batches that were taken but led to no update are taken again."""
        stored: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        state = cls(stored["stage"], stored["weights"], stored["fourier"])
        vars(state).update(stored)
        state.counters = state.counters.cpu()
        state.counters[1] = state.counters[0]
        return state


def _trained(network: Network) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]
