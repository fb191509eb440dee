"""The cost of a network: parameters and multiply-accumulates, also as papers count them."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from swinir.models.phases import COEFFICIENTS
from swinir.models.reconstruction import shuffle_steps
from swinir.models.swinir import NetworkConfig, SwinIR, closing_conv

# Operations a value that fvcore counts for normalisation with learned factors, and for pooling to one size. Papers that
# count with it, such as DAT's (Chen et al., 2023), include them in their multiply-adds.
LAYER_NORM, BATCH_NORM, POOLING = 5, 2, 1


@cache
def count_parameters(config: NetworkConfig) -> int:
    """Count the learned values of all parameters."""
    with torch.device("meta"):
        return sum(p.numel() for p in SwinIR(config).parameters())


def count_macs(config: NetworkConfig, height: int, width: int, *, norms: bool = False) -> int:
    """Count the multiply-accumulates for a (1, C, height, width) image: convolutions, linear layers, attention.

    The image is counted as extended to whole windows. Normalisation, softmax and activations are left out, as are the
    weights of coefficients and their sums by a network of any scale.

    Args:
        norms: count normalisation, too, as fvcore does.
    """
    w = config.window
    pixels = (-(-height // w) * w) * (-(-width // w) * w)
    dim, chans, feat, scale = config.embed_dim, config.in_chans, config.num_feat, int(config.upscale)
    hidden = int(dim * config.mlp_ratio)
    layer = 4 * dim * dim + 2 * w * w * dim + 2 * dim * hidden
    single = {"1conv": 9 * dim * dim, "none": 9 * dim * dim, "1x1": dim * dim}
    closing = single.get(config.resi_connection, 18 * dim * (dim // 4) + (dim // 4) ** 2)
    total = 9 * chans * dim + sum(config.depths) * layer + (len(config.depths) + 1) * closing
    if norms:
        total += LAYER_NORM * dim * (2 * sum(config.depths) + 2)
    if config.any_scale:
        total += 9 * dim * chans * COEFFICIENTS
    elif config.upsampler == "pixelshuffle":
        total += 9 * dim * feat
        area = 1
        for factor in shuffle_steps(scale):
            total += area * 9 * feat * feat * factor**2
            area *= factor**2
        total += area * 9 * feat * chans
    elif config.upsampler == "pixelshuffledirect":
        total += 9 * dim * chans * scale**2
    elif config.upsampler == "nearest+conv":
        areas = [4, 16] if scale == 4 else [4]
        total += 9 * dim * feat + sum(areas) * 9 * feat * feat
        total += areas[-1] * 9 * (feat * feat + feat * chans)
    else:
        total += 9 * dim * chans
    return total * pixels


def measure_macs(model: nn.Module, chans: int, height: int, width: int, *, norms: bool = False) -> int:
    """Count the multiply-accumulates of any network for a (1, chans, height, width) image while it runs.

    As in `count_macs`, these are convolutions and matrix products only. The network runs on tensors that have shapes
    but no values, which takes neither memory nor computation.

    Args:
        norms: count normalisation and pooling, too, as fvcore does.

    Raises:
        Exception: from the network, also if its steps depend on values.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode  # takes a second to load
    from torch.func import functional_call
    from torch.utils.flop_counter import FlopCounterMode

    shapes = FakeTensorMode(allow_non_fake_inputs=True)
    state: dict[str, Tensor] = {
        name: shapes.from_tensor(tensor.detach())
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
    }
    device = next(iter(state.values())).device if state else torch.device("cpu")
    further = _norm_operations() if norms else None
    with torch.inference_mode(), shapes, FlopCounterMode(display=False, custom_mapping=further) as counter:
        functional_call(model, state, (torch.empty(1, chans, height, width, device=device),))
    return int(counter.get_total_flops()) // 2


def _norm_operations() -> dict[Any, Callable[..., int]]:
    """Operations of normalisation and pooling for `FlopCounterMode`, which has two for a multiply-accumulate."""

    def of(count: int) -> Callable[..., int]:
        return lambda shape, *_, **__: 2 * count * math.prod(shape)

    aten = torch.ops.aten
    counts = {aten.layer_norm: LAYER_NORM, aten.batch_norm: BATCH_NORM, aten.adaptive_avg_pool2d: POOLING}
    # An overload that is no key is taken apart before its packet is looked up.
    return {key: of(count) for packet, count in counts.items() for key in (packet, packet.default)}


def count_parameters_as_published(config: NetworkConfig) -> int:
    """Count parameters as the paper does (Table 3: 878K, 886K, 897K): without the convolution after the RSTBs."""
    with torch.device("meta"):
        left_out = sum(p.numel() for p in closing_conv(config).parameters())
    return count_parameters(config) - left_out


def count_macs_as_published(config: NetworkConfig) -> int:
    """Count Mult-Adds of lightweight networks as the paper does (Table 3: 195.6, 87.2, 49.6 G), for comparison.

    The paper's count is for a 1024x720 output, although the table says 1280x720, and an input extended by one more
    window. It has 3 C**2 operations a pixel for the convolution after the RSTBs, three output channels for the last
    convolution, and two operations a value for the LayerNorms.

    Raises:
        ValueError: for networks other than "pixelshuffledirect" ones with one convolution in the residuals.
    """
    if config.upsampler != "pixelshuffledirect" or config.resi_connection != "1conv":
        raise ValueError("the published count exists for pixelshuffledirect networks only")
    w, dim, chans, depth = config.window_size, config.embed_dim, config.in_chans, sum(config.depths)
    height, width = ((side // int(config.upscale) // w + 1) * w for side in (1024, 720))
    layer = 4 * dim * dim + 2 * w * w * dim + 2 * dim * int(dim * config.mlp_ratio) + 2 * dim
    total = 9 * chans * dim + depth * layer + len(config.depths) * 9 * dim * dim + 3 * dim * dim
    return height * width * (total + 9 * dim * chans + dim)
