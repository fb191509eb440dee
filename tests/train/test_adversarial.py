"""Adversarial objectives against closed forms."""

import math

import pytest
import torch

from swinir.train.adversarial import OBJECTIVES, get_objective

REAL = (2.0, -1.0, 0.5)
FAKE = (0.0, -3.0, 1.5)


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
EXPECTED = {  # of generator and discriminator
    "vanilla": (cross_entropy(FAKE, 1), cross_entropy(REAL, 1) + cross_entropy(FAKE, 0)),
    "lsgan": (squares(FAKE, 1), squares(REAL, 1) + squares(FAKE, 0)),
    "relativistic": (
        (cross_entropy(REAL_LEAD, 0) + cross_entropy(FAKE_LEAD, 1)) / 2,
        (cross_entropy(REAL_LEAD, 1) + cross_entropy(FAKE_LEAD, 0)) / 2,
    ),
}


def test_every_objective_has_its_closed_form_here():
    assert list(OBJECTIVES) == list(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_losses_are_their_closed_forms(name):
    objective, (generator, discriminator) = get_objective(name), EXPECTED[name]
    assert objective.generator_loss(logits(REAL), logits(FAKE)).item() == pytest.approx(generator, rel=1e-12)
    assert objective.discriminator_loss(logits(REAL), logits(FAKE)).item() == pytest.approx(discriminator, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "generator", "discriminator"),
    [("vanilla", math.log(2), 2 * math.log(2)), ("lsgan", 1, 1), ("relativistic", math.log(2), math.log(2))],
)
def test_an_undecided_discriminator_costs_what_chance_costs(name, generator, discriminator):
    objective, zero = get_objective(name), torch.zeros(2, 1, 3, 3)
    assert objective.generator_loss(zero, zero).item() == pytest.approx(generator)
    assert objective.discriminator_loss(zero, zero).item() == pytest.approx(discriminator)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_generator_raises_fake_logits_and_leaves_real_ones_alone(name):
    real, fake = logits((0.4, -0.3)), logits((0.1, -0.2))
    get_objective(name).generator_loss(real, fake).backward()
    assert (fake.grad < 0).all()
    assert real.grad is None


@pytest.mark.parametrize("name", EXPECTED)
def test_the_discriminator_raises_real_logits_and_lowers_fake_ones(name):
    real, fake = logits((0.4, -0.3)), logits((0.3, 0.2))
    get_objective(name).discriminator_loss(real, fake).backward()
    assert (real.grad < 0).all()
    assert (fake.grad > 0).all()


def test_the_relativistic_generator_learns_from_real_images_too():
    fake = logits(FAKE)
    loss = get_objective("relativistic").generator_loss
    (high,) = torch.autograd.grad(loss(logits([r + 1 for r in REAL]), fake), fake)
    (low,) = torch.autograd.grad(loss(logits(REAL), fake), fake)
    assert (high < low).all()


def test_only_a_relativistic_generator_needs_real_logits():
    assert get_objective("vanilla").generator_loss(None, logits(FAKE)).item() == pytest.approx(EXPECTED["vanilla"][0])
    with pytest.raises(ValueError, match="needs the real logits too, got None"):
        get_objective("relativistic").generator_loss(None, logits(FAKE))


@pytest.mark.parametrize("name", EXPECTED)
def test_half_precision_logits_give_finite_float32_losses(name):
    real, fake = torch.full((1, 1, 64, 64), 40.0, dtype=torch.bfloat16), torch.full((1, 1, 64, 64), -40.0).bfloat16()
    for loss in (get_objective(name).generator_loss, get_objective(name).discriminator_loss):
        assert loss(real, fake).dtype == torch.float32
        assert torch.isfinite(loss(real, fake))


def test_an_unknown_objective_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="unknown adversarial objective 'wgan'; choose from vanilla, lsgan, relativ"):
        get_objective("wgan")
