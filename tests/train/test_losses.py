"""Pixel losses against closed forms."""

import math

import pytest
import torch

from swinir.train.config import LossConfig
from swinir.train.losses import build_loss, charbonnier, l1, l2

DIFFERENCES = torch.tensor([[0.0, 3.0], [-4.0, 1.0]], dtype=torch.float64)
GT = torch.full((2, 2), 0.5, dtype=torch.float64)


def config(name):
    return LossConfig.model_construct(name=name, epsilon=1e-2)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("l1", 8 / 4),
        ("l2", 26 / 4),
        ("charbonnier", sum(math.sqrt(d * d + 1e-2) for d in (0, 3, 4, 1)) / 4),
    ],
)
def test_a_configured_loss_is_its_closed_form(name, expected):
    assert build_loss(config(name))(GT + DIFFERENCES, GT).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (l1, DIFFERENCES.sign() / 4),
        (l2, DIFFERENCES / 2),
        (charbonnier, DIFFERENCES / (DIFFERENCES**2 + 1e-9).sqrt() / 4),
    ],
)
def test_the_gradient_is_its_closed_form(loss, expected):
    restored = (GT + DIFFERENCES).requires_grad_()
    loss(restored, GT).backward()
    torch.testing.assert_close(restored.grad, expected, rtol=1e-12, atol=1e-12)


def test_charbonnier_is_differentiable_where_nothing_differs():
    restored = GT.clone().requires_grad_()
    charbonnier(restored, GT).backward()
    assert restored.grad.abs().max() == 0


def test_an_unknown_loss_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"unknown pixel loss 'l3'; choose from l1, l2, charbonnier"):
        build_loss(config("l3"))
