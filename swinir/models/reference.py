"""SwinIR written from the paper (Liang et al., ICCVW 2021, Section 3), for clarity alone.

It is the oracle of the tests and the baseline for speed, so it shares no code with the rest of the package. It reads
weights from a state dict by their keys, for any configuration. Attention is spelled out (roll, cut into windows, mask
by regions, softmax) over the whole image at once, as in the released program.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class ReferenceSwinIR:
    """(B, C, H, W) in [0, 1] to (B, C, H*upscale, W*upscale), with the weights and the dtype of a state dict.

    Args:
        config: an object with the attributes of `NetworkConfig`.
        state: learned weights by the released names, on the device for the work.
    """

    def __init__(self, config: Any, state: Mapping[str, Tensor]) -> None:
        self.config = config
        self.state = state

    def __call__(self, lq: Tensor) -> Tensor:
        c = self.config
        height, width = lq.shape[-2:]
        rgb = torch.tensor([0.4488, 0.4371, 0.4040] if c.in_chans == 3 else [0.0] * c.in_chans)  # float32 as released
        mean = rgb.view(1, -1, 1, 1).to(lq)
        x = (extend(lq, c.window) - mean) * c.img_range
        shallow = self.conv("conv_first", x)
        deep = self.closing("conv_after_body", self.deep_features(shallow)) + shallow
        restored = self.reconstruct(deep, x) / c.img_range + mean
        return restored[..., : height * c.upscale, : width * c.upscale]

    # Deep feature extraction (Section 3.2), on images with the channels last

    def deep_features(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        if self.config.patch_norm:
            x = self.layer_norm("patch_embed.norm", x)
        if self.config.ape:
            x = x + self.state["absolute_pos_embed"].view(1, *x.shape[1:])
        for i, depth in enumerate(self.config.depths):
            x = self.rstb(f"layers.{i}", x, depth, self.config.num_heads[i])
        return self.layer_norm("norm", x).permute(0, 3, 1, 2)

    def rstb(self, name: str, x: Tensor, depth: int, heads: int) -> Tensor:
        """Residual Swin Transformer block: layers, a convolution, a residual."""
        deep = x
        for j in range(depth):
            shift = self.config.window // 2 if self.config.shifted and j % 2 == 1 else 0
            deep = self.layer(f"{name}.residual_group.blocks.{j}", deep, heads, shift)
        deep = deep.permute(0, 3, 1, 2)
        if self.config.resi_connection == "none":  # Table 1's variant, without the addition
            return self.conv(f"{name}.conv.0", deep).permute(0, 2, 3, 1)
        return self.closing(f"{name}.conv", deep).permute(0, 2, 3, 1) + x

    def layer(self, name: str, x: Tensor, heads: int, shift: int) -> Tensor:
        """Swin Transformer layer: attention and MLP, each with a norm before it and a residual."""
        window = self.config.window
        normed = self.layer_norm(f"{name}.norm1", x)
        normed = torch.roll(normed, (-shift, -shift), (1, 2))
        windows = cut(normed, window)
        mask = self.mask(x, shift) if shift else None
        windows = self.attention(f"{name}.attn", windows, heads, mask)
        attended = torch.roll(join(windows, window, x.shape), (shift, shift), (1, 2))
        x = x + attended
        hidden = F.gelu(self.linear(f"{name}.mlp.fc1", self.layer_norm(f"{name}.norm2", x)))
        return x + self.linear(f"{name}.mlp.fc2", hidden)

    def mask(self, x: Tensor, shift: int) -> Tensor:
        """Return the mask of the windows of x, (B, H, W, C), shifted."""
        return region_mask(x.shape[1], x.shape[2], self.config.window, shift).to(x)

    def attention(self, name: str, x: Tensor, heads: int, mask: Tensor | None) -> Tensor:
        """Multi-head self-attention inside windows, on (B * windows, N, C)."""
        count, tokens, dim = x.shape
        qkv = self.linear(f"{name}.qkv", x).view(count, tokens, 3, heads, dim // heads).permute(2, 0, 3, 1, 4)
        query, key, value = qkv[0], qkv[1], qkv[2]
        logits = query @ key.transpose(-2, -1) / math.sqrt(dim // heads)
        logits = logits + self.position_bias(f"{name}.relative_position_bias_table", heads)
        if mask is not None:
            masked = logits.view(-1, len(mask), heads, tokens, tokens) + mask[None, :, None]
            logits = masked.view(count, heads, tokens, tokens)
        attended = logits.softmax(-1) @ value
        return self.linear(f"{name}.proj", attended.transpose(1, 2).reshape(count, tokens, dim))

    def position_bias(self, name: str, heads: int) -> Tensor:
        """Expand the table to (heads, N, N), a learned number for each offset between two tokens."""
        window = self.config.window
        offset = torch.arange(window)[:, None] - torch.arange(window)[None, :] + window - 1
        rows, cols = offset[:, None, :, None], offset[None, :, None, :]
        index = (rows * (2 * window - 1) + cols).reshape(window**2, window**2)
        return self.state[name][index.to(self.state[name].device)].view(*index.shape, heads).permute(2, 0, 1)

    # Reconstruction (Section 3.1)

    def reconstruct(self, deep: Tensor, x: Tensor) -> Tensor:
        c = self.config
        if c.upsampler == "pixelshuffle":
            deep = F.leaky_relu(self.conv("conv_before_upsample.0", deep), 0.01)
            factors = [3] if c.upscale == 3 else [2] * round(math.log2(c.upscale))
            for i, factor in enumerate(factors):
                deep = F.pixel_shuffle(self.conv(f"upsample.{2 * i}", deep), factor)
            return self.conv("conv_last", deep)
        if c.upsampler == "pixelshuffledirect":
            return F.pixel_shuffle(self.conv("upsample.0", deep), c.upscale)
        if c.upsampler == "nearest+conv":
            deep = F.leaky_relu(self.conv("conv_before_upsample.0", deep), 0.01)
            for i in range(round(math.log2(c.upscale))):
                deep = deep.repeat_interleave(2, 2).repeat_interleave(2, 3)
                deep = F.leaky_relu(self.conv(f"conv_up{i + 1}", deep), 0.2)
            return self.conv("conv_last", F.leaky_relu(self.conv("conv_hr", deep), 0.2))
        return x + self.conv("conv_last", deep)

    # Parts with weights

    def closing(self, name: str, x: Tensor) -> Tensor:
        if self.config.resi_connection != "3conv":
            return self.conv(name, x)
        x = F.leaky_relu(self.conv(f"{name}.0", x), 0.2)
        x = F.leaky_relu(self.conv(f"{name}.2", x), 0.2)
        return self.conv(f"{name}.4", x)

    def conv(self, name: str, x: Tensor) -> Tensor:
        weight = self.state[f"{name}.weight"]
        return F.conv2d(x, weight, self.state[f"{name}.bias"], padding=weight.shape[-1] // 2)

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"))

    def layer_norm(self, name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.state[f"{name}.weight"], self.state[f"{name}.bias"], 1e-5)


def extend(x: Tensor, multiple: int) -> Tensor:
    """Extend (B, C, H, W) at the bottom and right by reflection, without repeating the edge, to multiples."""
    for dim in (2, 3):
        size = x.shape[dim]
        path = [*range(size), *range(size - 2, 0, -1)]  # forwards and backwards
        x = x[(slice(None),) * dim + ([path[i % len(path)] for i in range(-(-size // multiple) * multiple)],)]
    return x


def cut(x: Tensor, window: int) -> Tensor:
    """Cut (B, H, W, C) into windows (B * windows, N, C)."""
    batch, height, width, dim = x.shape
    x = x.view(batch, height // window, window, width // window, window, dim)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, window**2, dim)


def join(x: Tensor, window: int, shape: torch.Size) -> Tensor:
    """Undo `cut`: windows to (B, H, W, C)."""
    batch, height, width, dim = shape
    x = x.view(batch, height // window, width // window, window, window, dim)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(shape)


def region_mask(height: int, width: int, window: int, shift: int) -> Tensor:
    """(windows, N, N): -100 between tokens that lie in different regions of the image before it was rolled."""
    regions = torch.zeros(1, height, width, 1)
    edges = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
    for i, rows in enumerate(edges):
        for j, cols in enumerate(edges):
            regions[:, rows, cols] = 3 * i + j
    region = cut(regions, window).squeeze(-1)
    return torch.where(region[:, :, None] == region[:, None, :], 0.0, -100.0)
