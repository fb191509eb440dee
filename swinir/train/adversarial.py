"""Adversarial objectives over a discriminator's logits: one row of `OBJECTIVES` each.

With x real, y fake, C the discriminator's logits and all expectations means over batch and pixels:

    vanilla       L_D = E[bce(C(x), 1)] + E[bce(C(y), 0)]      L_G = E[bce(C(y), 1)]
    lsgan         L_D = E[(C(x) - 1)^2] + E[C(y)^2]            L_G = E[(C(y) - 1)^2]
    relativistic  L_D = (E[bce(C(x) - E[C(y)], 1)] + E[bce(C(y) - E[C(x)], 0)]) / 2
                  L_G = (E[bce(C(x) - E[C(y)], 0)] + E[bce(C(y) - E[C(x)], 1)]) / 2

vanilla is the non-saturating game of Goodfellow et al. (2014, Section 3); SwinIR's real-world recipe takes it,
with weight 0.1 for the generator. lsgan is Mao et al. (ICCV 2017) with labels 0 and 1; relativistic is the
relativistic average of Wang et al. (ESRGAN, ECCVW 2018), Eq. 1 and 2. The factors are those of the released training
programs (KAIR, BasicSR), not always of the papers: terms are summed for vanilla and lsgan (twice Mao's losses) and
averaged for relativistic (half of ESRGAN's).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

REAL, FAKE = 1.0, 0.0


def _cross_entropy(logits: Tensor, label: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


def _squares(logits: Tensor, label: float) -> Tensor:
    return ((logits - label) ** 2).mean()


@dataclass(frozen=True)
class Objective:
    """What generator and discriminator minimise. Logits are of any shape, (B, 1, H, W) from `UNetDiscriminator`.

    Attributes:
        distance: mean distance of logits from a label.
        relativistic: whether logits are judged against the mean of the other side. If not, the generator's loss does
            not depend on the real logits, and the discriminator need not see a real image for it.
    """

    distance: Callable[[Tensor, float], Tensor]
    relativistic: bool

    def generator_loss(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        """The generator's loss, a float32 scalar; gradients flow to the fake logits alone.

        Args:
            real_logits: of real images; None will do where the objective is not relativistic.
            fake_logits: of restored images, with their graph.

        Raises:
            ValueError: for a relativistic objective without real logits.
        """
        fake = _float(fake_logits)
        if not self.relativistic:
            return self.distance(fake, REAL)
        if real_logits is None:
            raise ValueError("a relativistic objective needs the real logits too, got None")
        real = _float(real_logits.detach())
        return (self.distance(real - fake.mean(), FAKE) + self.distance(fake - real.mean(), REAL)) / 2

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """The discriminator's loss, a float32 scalar; the fake logits are those of detached images."""
        real, fake = _float(real_logits), _float(fake_logits)
        if not self.relativistic:
            return self.distance(real, REAL) + self.distance(fake, FAKE)
        return (self.distance(real - fake.mean(), REAL) + self.distance(fake - real.mean(), FAKE)) / 2


OBJECTIVES = {
    "vanilla": Objective(_cross_entropy, relativistic=False),
    "lsgan": Objective(_squares, relativistic=False),
    "relativistic": Objective(_cross_entropy, relativistic=True),
}


def get_objective(name: str) -> Objective:
    """The objective of that name.

    Raises:
        ValueError: for an unknown one, with the choices.
    """
    if name not in OBJECTIVES:
        raise ValueError(f"unknown adversarial objective {name!r}; choose from {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]


def _float(logits: Tensor) -> Tensor:
    """At least float32: means over many bfloat16 logits would lose digits."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
