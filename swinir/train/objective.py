"""What a network is trained towards: a pixel loss, and for the GAN recipes VGG features and a discriminator."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from swinir.train.adversarial import get_objective
from swinir.train.config import AdversarialConfig, LossConfig
from swinir.train.discriminator import UNetDiscriminator
from swinir.train.losses import build_loss
from swinir.train.perceptual import PerceptualLoss, load_vgg19


class Adversary:
    """The discriminator, its optimizer and both sides' losses."""

    def __init__(self, config: AdversarialConfig, in_chans: int, device: torch.device) -> None:
        self.weight, self.lr = config.weight, config.lr
        self.losses = get_objective(config.objective)
        self.discriminator = UNetDiscriminator(in_chans, config.num_feat).to(device)
        self.optimizer = torch.optim.Adam(self.discriminator.parameters(), lr=config.lr, betas=config.betas)

    def generator_loss(self, restored: Tensor, gt: Tensor) -> Tensor:
        """What the restored images lose by being recognised; the discriminator's weights get no gradient."""
        self.discriminator.requires_grad_(False)
        real = None
        if self.losses.relativistic:
            with torch.no_grad():
                real = self.discriminator(gt)
        loss = self.losses.generator_loss(real, self.discriminator(restored))
        self.discriminator.requires_grad_(True)
        return loss

    def discriminator_loss(self, restored: Tensor, gt: Tensor) -> Tensor:
        """What the discriminator loses by taking one for the other."""
        return self.losses.discriminator_loss(self.discriminator(gt), self.discriminator(restored.detach()))

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Start from the weights of another run's discriminator; a ValueError where they do not fit."""
        try:
            self.discriminator.load_state_dict(dict(weights))
        except RuntimeError as error:
            raise ValueError(f"not the weights of this discriminator: {' '.join(str(error).split())}") from error

    def state(self) -> dict[str, Any]:
        return {"discriminator": self.discriminator.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.discriminator.load_state_dict(state["discriminator"])
        self.optimizer.load_state_dict(state["optimizer"])


class Objective:
    """The weighted sum of a configuration's losses on (B, C, H, W) restored and ground-truth images."""

    def __init__(self, config: LossConfig, in_chans: int, device: torch.device) -> None:
        self.config = config
        self.pixel = build_loss(config)
        perceptual = config.perceptual
        self.perceptual = (
            PerceptualLoss(
                load_vgg19(perceptual.weights), layers=perceptual.layers, layer_weights=perceptual.layer_weights
            ).to(device)
            if perceptual
            else None
        )
        self.adversary = Adversary(config.adversarial, in_chans, device) if config.adversarial else None

    def __call__(self, restored: Tensor, gt: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and its parts by name, unweighted, where there is more than one."""
        total = self.config.weight * self.pixel(restored, gt)
        if self.perceptual is None and self.adversary is None:
            return total, {}
        parts = {"pixel": total.detach() / self.config.weight if self.config.weight else total.detach()}
        if self.perceptual is not None and self.config.perceptual is not None:
            parts["perceptual"] = self.perceptual(restored, gt)
            total = total + self.config.perceptual.weight * parts["perceptual"]
        if self.adversary is not None:
            parts["adversarial"] = self.adversary.generator_loss(restored, gt)
            total = total + self.adversary.weight * parts["adversarial"]
        return total, {name: value.detach() for name, value in parts.items()}
