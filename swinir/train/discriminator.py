"""Discriminator of SwinIR's real-world recipe: a U-Net with a logit for every pixel.

    image -> conv0 ------------------------------------------ + -> conv7 -> conv8 -> conv9 -> logits
               \\-> conv1 ------------------------- + -> conv6 /
                     \\-> conv2 --------- + -> conv5 /
                           \\-> conv3 -> conv4 /

conv1 to conv3 halve the sides. Before conv4 to conv6 the features are enlarged bilinearly to the size of the skip
connection. Wang et al., Real-ESRGAN (ICCVW 2021), Figure 6; SwinIR's recipe uses the same network with 64 features.
"""

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import spectral_norm

SLOPE = 0.2  # of leaky ReLU below zero
GAIN = 0.2  # of the recipe's orthogonal initialisation
MIN_SIDE = 8  # leaves a pixel after halving three times


class UNetDiscriminator(nn.Module):
    """U-Net with spectral normalisation of all but its first and last convolution (Miyato et al., ICLR 2018).

    State-dict keys are those of the published discriminators (`conv0.weight`, `conv1.weight_orig`, `conv1.weight_u`,
    ...), so the older of PyTorch's two functions for spectral normalisation is used. It refines its estimate of a
    weight's largest singular value by one power iteration at each forward pass in training mode, and has no estimate
    before the first. Keep the discriminator in training mode, also for the generator's loss.

    Initial weights are orthogonal and biases zero. Spectral normalisation removes the gain of all but conv0 and conv9.

    Args:
        in_chans: channels of the images.
        num_feat: features at full resolution; two, four and eight times as many at the lower ones.
    """

    def __init__(self, in_chans: int = 3, num_feat: int = 64) -> None:
        super().__init__()
        self.conv0 = _conv(in_chans, num_feat, bias=True)
        self.conv1 = spectral_norm(_conv(num_feat, 2 * num_feat, down=True))
        self.conv2 = spectral_norm(_conv(2 * num_feat, 4 * num_feat, down=True))
        self.conv3 = spectral_norm(_conv(4 * num_feat, 8 * num_feat, down=True))
        self.conv4 = spectral_norm(_conv(8 * num_feat, 4 * num_feat))
        self.conv5 = spectral_norm(_conv(4 * num_feat, 2 * num_feat))
        self.conv6 = spectral_norm(_conv(2 * num_feat, num_feat))
        self.conv7 = spectral_norm(_conv(num_feat, num_feat))
        self.conv8 = spectral_norm(_conv(num_feat, num_feat))
        self.conv9 = _conv(num_feat, 1, bias=True)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, 1, H, W), high where a pixel looks real, of images (B, C, H, W) in [0, 1].

        Raises:
            ValueError: for images with a side under 8.
        """
        height, width = images.shape[-2:]
        if min(height, width) < MIN_SIDE:
            raise ValueError(f"the discriminator needs sides of at least {MIN_SIDE}, got {height} x {width}")
        full = _leaky(self.conv0(images))
        half = _leaky(self.conv1(full))
        quarter = _leaky(self.conv2(half))
        x = _leaky(self.conv3(quarter))
        for conv, skip in ((self.conv4, quarter), (self.conv5, half), (self.conv6, full)):
            x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            x = _leaky(conv(x)) + skip
        x = _leaky(self.conv7(x))
        x = _leaky(self.conv8(x))
        return self.conv9(x)


def _conv(in_chans: int, out_chans: int, *, down: bool = False, bias: bool = False) -> nn.Conv2d:
    """Return a 3x3 convolution, or a 4x4 one with stride 2, initialised as in the recipe."""
    conv = nn.Conv2d(in_chans, out_chans, 4 if down else 3, stride=2 if down else 1, padding=1, bias=bias)
    nn.init.orthogonal_(conv.weight, GAIN)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, SLOPE, inplace=True)
