"""The ways to run a network."""

import torch
from networks import CONFIGS, live

from swinir.bench.variants import CachedReference
from swinir.models import reference


def test_the_plain_network_with_a_cache_computes_masks_once_for_each_size(monkeypatch):
    network, made, region_mask = live(CONFIGS["same size"]), [], reference.region_mask
    monkeypatch.setattr(reference, "region_mask", lambda *size: made.append(size) or region_mask(*size))
    cached, plain = (
        kind(network.config, network.state_dict()) for kind in (CachedReference, reference.ReferenceSwinIR)
    )
    images = [torch.rand(1, 1, 16, 24), torch.rand(1, 1, 24, 16)]
    for lq in images * 2:
        assert torch.equal(cached(lq), plain(lq))
    layers = sum(network.config.depths) // 2  # that are shifted
    assert len(made) == len(images) + 2 * len(images) * layers
