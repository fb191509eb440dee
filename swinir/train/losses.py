"""Pixel losses of the paper."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from swinir.train.config import LossConfig

PixelLoss = Callable[[Tensor, Tensor], Tensor]


def l1(restored: Tensor, gt: Tensor) -> Tensor:
    """Mean absolute difference (Eq. 7)."""
    return (restored - gt).abs().mean()


def l2(restored: Tensor, gt: Tensor) -> Tensor:
    """Mean squared difference: what PSNR measures."""
    return ((restored - gt) ** 2).mean()


def charbonnier(restored: Tensor, gt: Tensor, epsilon: float = 1e-9) -> Tensor:
    """Mean of sqrt(difference**2 + epsilon) (Eq. 8; there the root's term is written as a square)."""
    return torch.sqrt((restored - gt) ** 2 + epsilon).mean()


def build_loss(config: LossConfig) -> PixelLoss:
    """The loss that a configuration names.

    Raises:
        ValueError: for an unknown name, with the choices.
    """
    losses: dict[str, PixelLoss] = {
        "l1": l1,
        "l2": l2,
        "charbonnier": partial(charbonnier, epsilon=config.epsilon),
    }
    if config.name not in losses:
        raise ValueError(f"unknown pixel loss {config.name!r}; choose from {', '.join(losses)}")
    return losses[config.name]
