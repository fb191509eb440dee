"""Weights that we write load in spandrel, and so in what builds on it, and mean the same there."""

import pytest
import torch

from swinir.models.any_scale import at_scale
from swinir.models.swinir import NetworkConfig, SwinIR
from swinir.weights import zoo
from swinir.weights.checkpoint import load_model, write_checkpoint

spandrel = pytest.importorskip("spandrel", reason="the check needs spandrel, the extra `baselines`")

SMALL = {"embed_dim": 24, "depths": (2, 2), "num_heads": (3, 3)}
NETWORKS = {
    "classical x2": NetworkConfig(upsampler="pixelshuffle", upscale=2, img_size=16, **SMALL),
    "classical x3": NetworkConfig(upsampler="pixelshuffle", upscale=3, img_size=16, **SMALL),
    "lightweight x4": NetworkConfig(upsampler="pixelshuffledirect", upscale=4, img_size=16, **SMALL),
    "real x4": NetworkConfig(upsampler="nearest+conv", upscale=4, img_size=16, **SMALL),
    "real x4 large": NetworkConfig(upsampler="nearest+conv", upscale=4, img_size=16, resi_connection="3conv", **SMALL),
    "gray denoising": NetworkConfig(in_chans=1, img_size=16, **SMALL),
    "color JPEG": NetworkConfig(window_size=7, img_range=255.0, img_size=14, **SMALL),
}


def agree(path, config):
    loaded = spandrel.ModelLoader(device="cpu").load_from_file(path)
    assert loaded.architecture.id == "SwinIR"
    assert loaded.scale == config.upscale
    ours, x = load_model(path, device="cpu"), torch.rand(1, config.in_chans, 21, 28)
    with torch.inference_mode():
        restored = ours(x)
        assert torch.allclose(loaded.model.eval()(x), restored, atol=2e-5)
    assert not torch.allclose(restored[..., :21, :28], x[..., : restored.shape[-2], : restored.shape[-1]], atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("key", ["params", "params_ema"])
def test_spandrel_computes_what_we_do_from_a_file_of_ours(name, key, tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "weights.pth"
    write_checkpoint(path, SwinIR(NETWORKS[name]).state_dict(), NETWORKS[name], key=key)
    agree(path, NETWORKS[name])


@pytest.mark.parametrize("entry", zoo.bundled(), ids=lambda entry: entry.alias)
def test_spandrel_loads_every_bundled_expert_one_of_any_scale_as_that_of_an_integer_one(entry, tmp_path):
    path = zoo.locate(entry.name)
    network = load_model(path, device="cpu")
    if network.config.any_scale:
        path, network = tmp_path / "x2.pth", at_scale(network, 2)
        write_checkpoint(path, network.state_dict(), network.config)
    agree(path, network.config)
