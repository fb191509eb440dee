"""Losses against closed forms."""

import math

import numpy as np
import pytest
import torch

from swinir.train.config import LossConfig
from swinir.train.losses import ADVERSARIAL_LOSSES, Objective, spectrum

CPU = torch.device("cpu")
DIFFERENCES = torch.tensor([[0.0, 3.0], [-4.0, 1.0]], dtype=torch.float64)
GT = torch.full((2, 2), 0.5, dtype=torch.float64)
REAL = (2.0, -1.0, 0.5)
FAKE = (0.0, -3.0, 1.5)


# Pixel losses.


def pixel_loss(**options):
    return Objective(LossConfig(**options), 3, CPU).pixel


@pytest.mark.parametrize(
    ("name", "value", "gradient"),
    [
        ("l1", 8 / 4, DIFFERENCES.sign() / 4),
        ("l2", 26 / 4, DIFFERENCES / 2),
        (
            "charbonnier",
            sum(math.sqrt(d * d + 1e-2) for d in (0, 3, 4, 1)) / 4,
            DIFFERENCES / (DIFFERENCES**2 + 1e-2).sqrt() / 4,
        ),
    ],
)
def test_pixel_losses_and_their_gradients_are_their_closed_forms(name, value, gradient):
    restored = (GT + DIFFERENCES).requires_grad_()
    loss = pixel_loss(name=name, epsilon=1e-2)(restored, GT)
    loss.backward()
    assert loss.item() == pytest.approx(value, rel=1e-12)
    torch.testing.assert_close(restored.grad, gradient, rtol=1e-12, atol=1e-12)


def test_charbonnier_is_differentiable_where_nothing_differs():
    restored = GT.clone().requires_grad_()
    pixel_loss(name="charbonnier")(restored, GT).backward()
    assert restored.grad.abs().max() == 0


# Local spectra.

SIDE = 16


def waves(phase, amplitude=0.25):
    """(1, 1, 32, 24) vertical stripes, four in each window: apart from the mean's frequencies under Hann's function."""
    columns = torch.arange(24, dtype=torch.float64) * 4 * math.tau / SIDE + phase
    return (0.5 + amplitude * columns.cos()).expand(1, 1, 32, 24)


def test_spectrum_is_numpys_of_windows_that_overlap_by_half():
    images = np.random.default_rng(0).random((2, 1, 3, 24, 32))
    hann = np.outer(*[np.hanning(SIDE + 1)[:-1]] * 2)
    distances = []
    for y in (0, 8):
        for x in (0, 8, 16):
            windows = images[..., y : y + SIDE, x : x + SIDE] * hann
            restored, gt = np.abs(np.fft.rfft2(windows)) / SIDE
            distances.append(np.abs(restored - gt).mean())
    assert spectrum(*torch.from_numpy(images), SIDE).item() == pytest.approx(np.mean(distances), rel=1e-12)


def test_spectrum_ignores_the_phase_of_a_texture_and_measures_its_strength():
    assert spectrum(waves(1.0), waves(0.0), SIDE).item() == pytest.approx(0, abs=1e-12)
    flat = torch.full_like(waves(0.0), 0.5)
    missing = spectrum(flat, waves(0.0), SIDE).item()
    assert missing > 1e-3
    assert spectrum(waves(1.0, 0.125), waves(0.0), SIDE).item() == pytest.approx(missing / 2, rel=1e-9)


def test_an_objective_adds_the_weighted_spectrum_and_reports_its_parts():
    restored, gt = waves(0.0, 0.125), waves(0.0)
    loss, parts = Objective(LossConfig(spectrum={"weight": 3.0, "side": SIDE}), 1, CPU)(restored, gt)
    assert set(parts) == {"pixel", "spectrum"}
    assert loss.item() == pytest.approx(parts["pixel"].item() + 3 * spectrum(restored, gt, SIDE).item(), rel=1e-12)


# Adversarial losses.


def logits(values):
    return torch.tensor(values, dtype=torch.float64).view(-1, 1, 1, 1).requires_grad_()


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def cross_entropy(values, label):
    """-log of the probability given to the label, as the papers write it."""
    sigmoids = [1 / (1 + math.exp(-v)) for v in values]
    return mean(-math.log(s if label else 1 - s) for s in sigmoids)


def squares(values, label):
    return mean((v - label) ** 2 for v in values)


REAL_LEAD = [r - mean(FAKE) for r in REAL]  # how much more real than the average fake
FAKE_LEAD = [f - mean(REAL) for f in FAKE]
EXPECTED = {  # generator, discriminator
    "vanilla": (cross_entropy(FAKE, 1), cross_entropy(REAL, 1) + cross_entropy(FAKE, 0)),
    "lsgan": (squares(FAKE, 1), squares(REAL, 1) + squares(FAKE, 0)),
    "relativistic": (
        (cross_entropy(REAL_LEAD, 0) + cross_entropy(FAKE_LEAD, 1)) / 2,
        (cross_entropy(REAL_LEAD, 1) + cross_entropy(FAKE_LEAD, 0)) / 2,
    ),
}
CHANCE = {"vanilla": (math.log(2), 2 * math.log(2)), "lsgan": (1, 1), "relativistic": (math.log(2), math.log(2))}


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_adversarial_losses_are_their_closed_forms(name):
    loss, (generator, discriminator) = ADVERSARIAL_LOSSES[name], EXPECTED[name]
    assert loss.generator(logits(REAL), logits(FAKE)).item() == pytest.approx(generator, rel=1e-12)
    assert loss.discriminator(logits(REAL), logits(FAKE)).item() == pytest.approx(discriminator, rel=1e-12)
    zero = torch.zeros(2, 1, 3, 3)
    chance = (loss.generator(zero, zero).item(), loss.discriminator(zero, zero).item())
    assert chance == pytest.approx(CHANCE[name])


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_both_sides_push_the_logits_their_way(name):
    loss, real, fake = ADVERSARIAL_LOSSES[name], logits((0.4, -0.3)), logits((0.3, 0.2))
    loss.generator(real, fake).backward()
    assert (fake.grad < 0).all()
    assert real.grad is None
    fake.grad = None
    loss.discriminator(real, fake).backward()
    assert (real.grad < 0).all()
    assert (fake.grad > 0).all()


def test_the_relativistic_generator_needs_the_real_logits_and_learns_from_them():
    fake, loss = logits(FAKE), ADVERSARIAL_LOSSES["relativistic"].generator
    (high,) = torch.autograd.grad(loss(logits([r + 1 for r in REAL]), fake), fake)
    (low,) = torch.autograd.grad(loss(logits(REAL), fake), fake)
    assert (high < low).all()
    with pytest.raises(ValueError, match="needs the real logits too, got None"):
        loss(None, fake)
    vanilla = ADVERSARIAL_LOSSES["vanilla"].generator(None, fake)
    assert vanilla.item() == pytest.approx(EXPECTED["vanilla"][0])


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_half_precision_logits_give_finite_float32_losses(name):
    real, fake = (torch.full((1, 1, 64, 64), value, dtype=torch.bfloat16) for value in (40.0, -40.0))
    for loss in (ADVERSARIAL_LOSSES[name].generator, ADVERSARIAL_LOSSES[name].discriminator):
        assert loss(real, fake).dtype == torch.float32
        assert torch.isfinite(loss(real, fake))
