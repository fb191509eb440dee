"""What a benchmark's input is worth as it is: noisy, compressed, or enlarged by MATLAB's bicubic."""

import torch
from torch import Tensor

from swinir.degradations.resize import imresize
from swinir.models.swinir import NetworkConfig


class Untreated:
    """Stands in for a network and restores nothing, so that the tester measures its input.

    Args:
        config: of a network for the same task; scale and channels are taken from it.
    """

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, config: NetworkConfig) -> None:
        self.config = config

    def __call__(self, x: Tensor, /) -> Tensor:
        """(B, C, H, W) in [0, 1] to (B, C, H*upscale, W*upscale), not clamped."""
        if self.config.upscale == 1:
            return x
        images = [imresize(image.permute(1, 2, 0).numpy(), self.config.upscale) for image in x]
        return torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image in images])
