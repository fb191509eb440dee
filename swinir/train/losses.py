"""Pixel losses of the paper."""

from collections.abc import Callable

import torch
from torch import Tensor

from swinir.train.config import LossConfig


def l1(restored: Tensor, gt: Tensor) -> Tensor:
    """Mean absolute difference (Eq. 7)."""
    return (restored - gt).abs().mean()


def charbonnier(restored: Tensor, gt: Tensor, epsilon: float = 1e-9) -> Tensor:
    """Mean of sqrt(difference**2 + epsilon) (Eq. 8; there the root's term is written as a square)."""
    return torch.sqrt((restored - gt) ** 2 + epsilon).mean()


def build_loss(config: LossConfig) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss that a configuration names."""
    if config.name == "charbonnier":
        return lambda restored, gt: charbonnier(restored, gt, config.epsilon)
    return l1
