"""Training losses: pixel losses, adversarial losses, and the weighted sum that a configuration describes.

With x real, y fake, C the discriminator's logits, and E the mean over batch and pixels:

    vanilla       L_D = E[bce(C(x), 1)] + E[bce(C(y), 0)]      L_G = E[bce(C(y), 1)]
    lsgan         L_D = E[(C(x) - 1)^2] + E[C(y)^2]            L_G = E[(C(y) - 1)^2]
    relativistic  L_D = (E[bce(C(x) - E[C(y)], 1)] + E[bce(C(y) - E[C(x)], 0)]) / 2
                  L_G = (E[bce(C(x) - E[C(y)], 0)] + E[bce(C(y) - E[C(x)], 1)]) / 2

vanilla is the non-saturating loss of Goodfellow et al. (2014, Section 3); SwinIR's real-world recipe uses it with a
weight of 0.1 for the generator. lsgan is Mao et al. (ICCV 2017) with labels 0 and 1. relativistic is the relativistic
average of Wang et al. (ESRGAN, ECCVW 2018), Eq. 1 and 2. The factors are those of the released training programs (KAIR,
BasicSR): vanilla and lsgan sum their terms (twice Mao's losses), relativistic averages them (half of ESRGAN's).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from swinir.train.config import AdversarialConfig, LossConfig
from swinir.train.discriminator import UNetDiscriminator
from swinir.train.perceptual import PerceptualLoss, load_vgg19

REAL, FAKE = 1.0, 0.0
PixelLoss = Callable[[Tensor, Tensor], Tensor]


def l1(restored: Tensor, gt: Tensor) -> Tensor:
    """Mean absolute difference (Eq. 7)."""
    return (restored - gt).abs().mean()


def spectrum(restored: Tensor, gt: Tensor, side: int) -> Tensor:
    """Mean absolute difference between the magnitudes of the images' local spectra.

    A blurred output has too little of the high frequencies and pays for it wherever they are, while L1 prefers no
    texture to one that is out of phase with the ground truth.

    Args:
        restored, gt: (B, C, H, W) in [0, 1], sides of at least `side`.
        side: of the windows, which overlap by half and are weighted by Hann's function.
    """
    return (_magnitudes(restored, side) - _magnitudes(gt, side)).abs().mean()


def _magnitudes(images: Tensor, side: int) -> Tensor:
    """Magnitudes (B, C, rows, columns, side, side // 2 + 1) of orthonormal Fourier transforms, at least float32."""
    images = images.to(torch.promote_types(images.dtype, torch.float32))
    hann = torch.hann_window(side, dtype=images.dtype, device=images.device)
    windows = images.unfold(-2, side, side // 2).unfold(-2, side, side // 2)
    return torch.fft.rfft2(windows * hann * hann[:, None], norm="ortho").abs()


def l2(restored: Tensor, gt: Tensor) -> Tensor:
    """Mean squared difference, the quantity that PSNR measures."""
    return ((restored - gt) ** 2).mean()


def charbonnier(restored: Tensor, gt: Tensor, epsilon: float = 1e-9) -> Tensor:
    """Mean of sqrt(difference**2 + epsilon) (Eq. 8, which writes epsilon as a square)."""
    return torch.sqrt((restored - gt) ** 2 + epsilon).mean()


def cross_entropy(logits: Tensor, label: float) -> Tensor:
    """Mean binary cross-entropy of logits with one label for all of them."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


@dataclass(frozen=True)
class AdversarialLoss:
    """Losses of the generator and of the discriminator, from logits of any shape.

    Attributes:
        distance: mean distance of logits from a label.
        relativistic: compare each logit with the mean of the other side. Otherwise the generator's loss does not depend
            on the real logits.
    """

    distance: Callable[[Tensor, float], Tensor]
    relativistic: bool = False

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        """Loss of the generator, a float32 scalar; gradients flow to the fake logits only.

        Args:
            real_logits: logits of real images; None is enough for a loss that is not relativistic.
            fake_logits: logits of restored images, with their graph.

        Raises:
            ValueError: for a relativistic loss without real logits.
        """
        fake = _float(fake_logits)
        if not self.relativistic:
            return self.distance(fake, REAL)
        if real_logits is None:
            raise ValueError("a relativistic loss needs the real logits too, got None")
        real = _float(real_logits.detach())
        return (self.distance(real - fake.mean(), FAKE) + self.distance(fake - real.mean(), REAL)) / 2

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Loss of the discriminator, a float32 scalar; the fake logits are those of detached images."""
        real, fake = _float(real_logits), _float(fake_logits)
        if not self.relativistic:
            return self.distance(real, REAL) + self.distance(fake, FAKE)
        return (self.distance(real - fake.mean(), REAL) + self.distance(fake - real.mean(), FAKE)) / 2


def _float(logits: Tensor) -> Tensor:
    """Logits in at least float32: means over many bfloat16 logits would lose digits."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


ADVERSARIAL_LOSSES = {
    "vanilla": AdversarialLoss(cross_entropy),
    "lsgan": AdversarialLoss(lambda logits, label: ((logits - label) ** 2).mean()),
    "relativistic": AdversarialLoss(cross_entropy, relativistic=True),
}


class Adversary:
    """The discriminator, its optimizer, and both sides' losses."""

    def __init__(self, config: AdversarialConfig, in_chans: int, device: torch.device) -> None:
        self.weight, self.lr = config.weight, config.lr
        self.loss = ADVERSARIAL_LOSSES[config.objective]
        self.discriminator = UNetDiscriminator(in_chans, config.num_feat).to(device)
        self.optimizer = torch.optim.Adam(self.discriminator.parameters(), lr=config.lr, betas=config.betas)

    def generator_loss(self, restored: Tensor, gt: Tensor) -> Tensor:
        """Adversarial loss of the restored images; the discriminator's weights are frozen."""
        self.discriminator.requires_grad_(False)
        real = None
        if self.loss.relativistic:
            with torch.no_grad():
                real = self.discriminator(gt)
        loss = self.loss.generator(real, self.discriminator(restored))
        self.discriminator.requires_grad_(True)
        return loss

    def discriminator_loss(self, restored: Tensor, gt: Tensor) -> Tensor:
        """Loss of the discriminator; the restored images get no gradient."""
        return self.loss.discriminator(self.discriminator(gt), self.discriminator(restored.detach()))

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Start from the discriminator of another run.

        Raises:
            ValueError: if the weights do not fit.
        """
        try:
            self.discriminator.load_state_dict(dict(weights))
        except RuntimeError as error:
            raise ValueError(f"not the weights of this discriminator: {' '.join(str(error).split())}") from error

    def state(self) -> dict[str, Any]:
        """Everything that `load_state` needs."""
        return {"discriminator": self.discriminator.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        self.discriminator.load_state_dict(state["discriminator"])
        self.optimizer.load_state_dict(state["optimizer"])


class Objective:
    """Weighted sum of a configuration's losses over (B, C, H, W) restored and ground-truth images."""

    def __init__(self, config: LossConfig, in_chans: int, device: torch.device) -> None:
        self.config = config
        pixel: dict[str, PixelLoss] = {"l1": l1, "l2": l2, "charbonnier": partial(charbonnier, epsilon=config.epsilon)}
        self.pixel = pixel[config.name]
        self.perceptual: PerceptualLoss | None = None
        self.adversary: Adversary | None = None
        if config.perceptual:
            layers = dict(zip(config.perceptual.layers, config.perceptual.layer_weights, strict=True))
            self.perceptual = PerceptualLoss(load_vgg19(config.perceptual.weights), layers).to(device)
        if config.adversarial:
            self.adversary = Adversary(config.adversarial, in_chans, device)

    def __call__(self, restored: Tensor, gt: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and, where it has several parts, each of them by name and unweighted."""
        total = self.config.weight * self.pixel(restored, gt)
        if self.config.spectrum is None and self.perceptual is None and self.adversary is None:
            return total, {}
        parts = {"pixel": total.detach() / self.config.weight if self.config.weight else total.detach()}
        if self.config.spectrum is not None:
            parts["spectrum"] = spectrum(restored, gt, self.config.spectrum.side)
            total = total + self.config.spectrum.weight * parts["spectrum"]
        if self.perceptual is not None and self.config.perceptual is not None:
            parts["perceptual"] = self.perceptual(restored, gt)
            total = total + self.config.perceptual.weight * parts["perceptual"]
        if self.adversary is not None:
            parts["adversarial"] = self.adversary.generator_loss(restored, gt)
            total = total + self.adversary.weight * parts["adversarial"]
        return total, {name: value.detach() for name, value in parts.items()}
