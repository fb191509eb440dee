"""The network against SwinIR written down from the paper: every path, both windows, odd sizes."""

from dataclasses import replace

import pytest
import torch
from networks import CONFIGS, SMALL, live

from swinir.models.reference import PlainSwinIR


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=["32", "64"])
@pytest.mark.parametrize("size", [(1, 1), (13, 29), (40, 17)], ids=str)
def test_the_network_is_the_papers(config, dtype, tolerance, size):
    network = live(config, dtype)
    plain = PlainSwinIR(config, network.state_dict())
    lq = torch.rand(2, config.in_chans, *size, dtype=dtype)
    with torch.no_grad():
        assert (network(lq) - plain(lq)).abs().max() < tolerance


def test_the_networks_position_embedding_is_the_papers():
    config = replace(SMALL, ape=True)
    network, lq = live(config, torch.float64), torch.rand(1, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        assert (network(lq) - PlainSwinIR(config, network.state_dict())(lq)).abs().max() < 1e-10
