"""Networks of any scale: the same as ordinary ones at integer scales, sizes at others, and the optimized form."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swinir.models.any_scale import at_scale, coefficients_of
from swinir.models.complexity import count_parameters
from swinir.models.optimized import optimize
from swinir.models.reference import ReferenceSwinIR
from swinir.models.swinir import NetworkConfig, SwinIR

ANY = NetworkConfig(
    upscale=4, upsampler="any", embed_dim=12, depths=(2,), num_heads=(3,), window_size=4, img_size=8
)  # fmt: skip


def build(seed=0, **options):
    """A network in float64 whose learned change of the weights matters."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = SwinIR(replace(ANY, **options)).double().eval().requires_grad_(False)
        if network.config.any_scale:
            network.conv_coefficients.reset_parameters()
            torch.nn.init.normal_(network.phase_weights.fc2.weight, std=0.1)
    return network


def image(height, width):
    return torch.rand(2, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("chans", [1, 3])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_at_an_integer_scale_it_is_an_ordinary_network(scale, chans):
    network, x = build(in_chans=chans), image(9, 13)[:, :chans]
    fixed = at_scale(network, scale)
    assert fixed.config == replace(network.config, upsampler="pixelshuffledirect", upscale=scale)
    expected = network(x, (9 * scale, 13 * scale))
    assert (fixed(x) - expected).abs().max() < 1e-12
    assert (ReferenceSwinIR(fixed.config, fixed.state_dict())(x) - expected).abs().max() < 1e-12
    assert expected.std() > 0.1


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_an_ordinary_network_becomes_one_of_any_scale(scale):
    fixed, x = build(upsampler="pixelshuffledirect", upscale=scale), image(9, 13)
    fresh = SwinIR(ANY).double().eval().requires_grad_(False)  # whose learned change is zero
    fresh.load_state_dict(fresh.state_dict() | coefficients_of(fixed.state_dict(), scale))
    assert (fresh(x, (9 * scale, 13 * scale)) - fixed(x)).abs().max() < 1e-12
    assert (at_scale(fresh, scale)(x) - fixed(x)).abs().max() < 1e-12


def test_before_the_training_pixels_are_repeated():
    fresh, x = SwinIR(ANY).double().eval().requires_grad_(False), image(9, 13)
    once = fresh(x, (9, 13))
    assert torch.equal(fresh(x, (36, 52)), once.repeat_interleave(4, 2).repeat_interleave(4, 3))
    assert once.std() > 0.05


@settings(max_examples=15)
@given(st.integers(1, 13), st.integers(1, 13), st.integers(10, 45))
def test_sides_are_rounded_at_any_scale_and_the_optimized_form_agrees(height, width, tenths):
    network, scale = at_scale(build(), tenths / 10), tenths / 10
    x = image(height, width)
    restored = network(x)
    assert restored.shape == (2, 3, round(height * scale), round(width * scale))
    assert (optimize(network)(x) - restored).abs().max() < 1e-12


def test_each_axis_may_have_a_scale_of_its_own():
    network, x = build(), image(8, 12)
    both = network(x, (16, 36))
    assert both.shape == (2, 3, 16, 36)
    turned = both.transpose(-2, -1)
    assert (both[..., ::2, 1::3] - network(x, (8, 12))).abs().max() > 1e-3
    assert turned.shape[-2:] == (36, 16)


def test_scales_that_a_network_cannot_have_are_refused():
    network = build()
    with pytest.raises(ValueError, match=r"enlarges by 1 or more, got 0\.5; resize the image"):
        at_scale(network, 0.5)
    with pytest.raises(ValueError, match=r"enlarges by 2 only, got 2\.5; name one of any scale"):
        at_scale(at_scale(network, 2), 2.5)
    with pytest.raises(ValueError, match=r"needs an upscale of 2 or more, a whole number, got 2\.5"):
        replace(ANY, upsampler="pixelshuffledirect", upscale=2.5)
    assert at_scale(at_scale(network, 2.5), 3).config.upscale == 3


def test_the_same_weights_serve_all_scales_and_their_names_are_known():
    assert count_parameters(ANY) == count_parameters(replace(ANY, upscale=2.5))
    added = SwinIR(ANY).state_dict().keys() - SwinIR(replace(ANY, upsampler="pixelshuffledirect")).state_dict().keys()
    assert sorted(added) == [
        *(f"conv_coefficients.{name}" for name in ("bias", "weight")),
        *(f"phase_weights.fc{i}.{name}" for i in (1, 2) for name in ("bias", "weight")),
    ]
