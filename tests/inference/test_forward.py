"""A network as a function: either form of SwinIR, one precision for each, and options that check themselves."""

import pytest
import torch
from networks import CONFIGS, live

from swinir.inference.forward import as_function, optimize_for
from swinir.inference.options import RunOptions
from swinir.inference.restore import restore
from swinir.models.optimized import OptimizedSwinIR, optimize

LQ = torch.rand(1, 3, 21, 18, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_held_form_restores_as_its_network_does(precision):
    network = live(CONFIGS["pixelshuffle x2"])
    held, options = optimize(network, precision), RunOptions(16, 8, precision=precision)
    expected = restore(network, LQ, options)
    assert torch.equal(restore(held, LQ, options), expected)
    assert torch.equal(restore(held, LQ, options, precision="fp32"), expected)  # the default leaves its precision alone


def test_a_held_form_has_no_other_precision():
    with pytest.raises(ValueError, match="an optimized network computes in fp32, got precision 'bf16'; leave it out"):
        as_function(optimize(live(CONFIGS["pixelshuffle x2"])), RunOptions(precision="bf16"))


def test_only_swinir_is_optimized():
    network, other = live(CONFIGS["pixelshuffle x2"]), torch.nn.Identity()
    held = optimize_for(network, RunOptions(precision="bf16"))
    assert isinstance(held, OptimizedSwinIR)
    assert held.precision == "bf16"
    assert optimize_for(held, RunOptions()) is held
    assert optimize_for(other, RunOptions()) is other


def test_options_are_checked():
    with pytest.raises(ValueError, match="tile must be a number of pixels, 'auto' or None, got 'all'"):
        RunOptions("all")
    with pytest.raises(TypeError, match="tile_size"):
        restore(live(CONFIGS["pixelshuffle x2"]), LQ, tile_size=64)
