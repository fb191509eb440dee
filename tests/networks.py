"""Small networks, one for each path through the architecture."""

from dataclasses import replace

import torch
from golden_state import state

from swinir.models.swinir import NetworkConfig, SwinIR

SMALL = NetworkConfig(embed_dim=24, depths=(2, 3), num_heads=(3, 2), img_size=32)
CONFIGS = {
    "pixelshuffle x2": replace(SMALL, upsampler="pixelshuffle", upscale=2, num_feat=8),
    "pixelshuffle x3": replace(SMALL, upsampler="pixelshuffle", upscale=3, num_feat=8),
    "pixelshuffle x4, window 7": replace(
        SMALL, upsampler="pixelshuffle", upscale=4, num_feat=8, window_size=7, img_size=21
    ),
    "pixelshuffledirect x3": replace(SMALL, upsampler="pixelshuffledirect", upscale=3, qkv_bias=False),
    "nearest+conv x2": replace(SMALL, upsampler="nearest+conv", upscale=2, num_feat=8),
    "nearest+conv x4": replace(SMALL, upsampler="nearest+conv", upscale=4, num_feat=8, resi_connection="3conv"),
    "pixelshuffledirect x2, 1x1": replace(SMALL, upsampler="pixelshuffledirect", upscale=2, resi_connection="1x1"),
    "pixelshuffledirect x2, no residual": replace(
        SMALL, upsampler="pixelshuffledirect", upscale=2, resi_connection="none"
    ),
    "same size": replace(SMALL, in_chans=1, patch_norm=False),
    "same size, window 7": replace(SMALL, window_size=7, img_size=21, img_range=255.0),
    "one window": replace(SMALL, img_size=6),
}


def live(config, dtype=torch.float32, seed=2):
    """A network whose weights keep activations of order one through all layers."""
    network = SwinIR(config).eval().requires_grad_(False)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    weights = state(shapes, seed=seed, img_range=config.img_range)
    network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()}, strict=False)
    return network.to(dtype)
