"""Networks at any scale: passes, and the reduction of what networks of one scale give."""

import pytest
import torch

from swinir.bench.scales import reaching
from swinir.degradations.resize import imresize
from swinir.inference.external import Bicubic
from swinir.inference.restore import restore
from swinir.models.any_scale import at_scale
from swinir.models.swinir import NetworkConfig, SwinIR

LQ = torch.rand(1, 3, 11, 14, generator=torch.Generator().manual_seed(0))


def network(scale, upsampler="pixelshuffledirect"):
    config = NetworkConfig(upscale=scale, upsampler=upsampler, embed_dim=12, depths=(2,), num_heads=(2,), img_size=16)
    with torch.random.fork_rng():
        torch.manual_seed(scale)
        model = SwinIR(config).eval().requires_grad_(False)
        if config.any_scale:
            model.conv_coefficients.reset_parameters()
        return model


FIXED = [network(scale) for scale in (2, 3, 4)]
ANY = network(4, "any")


@pytest.mark.parametrize(
    ("scale", "factors"), [(1.1, (2,)), (2.5, (3,)), (3, (3,)), (3.7, (4,)), (6, (2, 3)), (10, (3, 4))]
)
def test_networks_of_one_scale_enlarge_to_the_next_and_are_reduced(scale, factors):
    expected = LQ
    for factor in factors:
        expected = restore(FIXED[factor - 2], expected)
    size = round(11 * scale), round(14 * scale)
    if expected.shape[-2:] != size:
        reduced = imresize(expected[0].permute(1, 2, 0).numpy(), size=size)
        expected = torch.from_numpy(reduced).permute(2, 0, 1)[None].clamp(0, 1)
    assert torch.equal(restore(reaching(scale, FIXED), LQ), expected)


@pytest.mark.parametrize(("scale", "factors"), [(1.1, (1.1,)), (2.5, (2.5,)), (4, (4,)), (6, (2, 3)), (5, (2, 2.5))])
def test_a_network_of_any_scale_takes_passes_beyond_its_largest(scale, factors):
    expected = LQ
    for factor in factors:
        expected = restore(at_scale(ANY, factor), expected)
    assert torch.equal(restore(reaching(scale, [ANY]), LQ), expected)


def test_without_networks_it_is_bicubic():
    assert torch.equal(restore(reaching(2.5, []), LQ), restore(Bicubic(3, 2.5), LQ))
