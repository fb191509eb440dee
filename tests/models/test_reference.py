"""The network against SwinIR written down from the paper: every path, both windows, odd sizes."""

from dataclasses import replace

import pytest
import torch
from networks import CONFIGS, SMALL, live

from swinir.models.reference import ReferenceSwinIR


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_the_network_is_the_papers(config):
    network = live(config, torch.float64)
    reference = ReferenceSwinIR(config, network.state_dict())
    for size in ((1, 1), (13, 29), (40, 17)):
        lq = torch.rand(2, config.in_chans, *size, dtype=torch.float64)
        with torch.no_grad():
            assert (network(lq) - reference(lq)).abs().max() < 1e-10


def test_the_networks_position_embedding_is_the_papers():
    config = replace(SMALL, ape=True)
    network, lq = live(config, torch.float64), torch.rand(1, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        assert (network(lq) - ReferenceSwinIR(config, network.state_dict())(lq)).abs().max() < 1e-10
