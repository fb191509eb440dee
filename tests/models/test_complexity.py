"""Parameters and multiply-accumulates against the literature and against counts by hooks."""

from dataclasses import replace

import pytest
import torch

from swinir.models.complexity import count_macs, count_macs_as_published, count_parameters_as_published
from swinir.models.swinir import NetworkConfig, SwinIR
from swinir.tasks import TASKS

TINY = NetworkConfig(
    upscale=2, upsampler="pixelshuffledirect", embed_dim=12, depths=(2, 2), num_heads=(3, 3), img_size=16
)


def test_macs_are_those_of_the_literature():
    medium = TASKS["classical_sr"].network_for(4)
    assert round(count_macs(medium, 64, 64) / 1e9, 1) == 53.6
    assert round(count_macs(medium, 256, 256) / 1e9, 1) == 856.9
    assert round(count_macs(TASKS["lightweight_sr"].network_for(2), 360, 640) / 1e9, 1) == 240.9
    assert round(count_macs(TASKS["lightweight_sr"].network_for(2), 360, 640, norms=True) / 1e9, 1) == 244.4


def test_macs_are_those_that_the_modules_perform():
    """Count by hooks on the linear and convolution modules, attention by its definition."""
    for options in (
        {"upsampler": "pixelshuffle", "upscale": 4},
        {"upsampler": "nearest+conv", "upscale": 4, "resi_connection": "3conv"},
        {"upsampler": "", "upscale": 1},
        {"upsampler": "pixelshuffledirect", "upscale": 3},
        {"upsampler": "", "upscale": 1, "resi_connection": "1x1"},
        {"upsampler": "", "upscale": 1, "resi_connection": "none"},
    ):
        config = replace(TINY, **options)
        network = SwinIR(config).eval()
        total = sum(config.depths) * 2 * 64 * config.embed_dim * 16 * 24

        def add(module, _inputs, output):
            nonlocal total
            total += module.weight.numel() * (output.numel() // module.weight.shape[0])

        for module in network.modules():
            if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
                module.register_forward_hook(add)
        with torch.no_grad():
            network(torch.rand(1, 3, 15, 20))
        assert count_macs(config, 15, 20) == total


@pytest.mark.parametrize(("scale", "macs", "parameters"), [(2, 195.6, 878), (3, 87.2, 886), (4, 49.6, 897)])
def test_the_papers_own_counts_are_reproduced(scale, macs, parameters):
    config = TASKS["lightweight_sr"].network_for(scale)
    assert round(count_macs_as_published(config) / 1e9, 1) == macs
    assert round(count_parameters_as_published(config) / 1e3) == parameters
