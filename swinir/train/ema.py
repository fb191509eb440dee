"""Exponential moving average of the weights."""

import torch
from torch import Tensor, nn


class Ema:
    """Averaged copy of a network's parameters: after each step, average += (1 - decay) (parameter - average)."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.averages = {name: p.detach().clone() for name, p in network.named_parameters()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        parameters = [p.detach() for _, p in network.named_parameters()]
        torch._foreach_lerp_(list(self.averages.values()), parameters, 1 - self.decay)

    def load(self, averages: dict[str, Tensor]) -> None:
        """Take over stored averages; a ValueError where names or shapes differ."""
        if averages.keys() != self.averages.keys():
            raise ValueError("stored averages belong to another network")
        for name, value in averages.items():
            self.averages[name].copy_(value)
