"""Geometry of attention windows: the order of their tokens, the shift, and the masks that it needs.

Tokens are in *window order*: the N tokens of an unshifted window are consecutive. A shifted layer permutes them, and
sorts its windows into the four classes of Swin's mask (inside, right edge, bottom edge, corner), so that four masks
serve an image of any size.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor

MASKED = -100.0  # added to the logits of tokens that are neighbours by the cyclic shift only


class Windows(NamedTuple):
    """The windows of one layer on an image of a given size.

    `order` and `inverse` permute tokens from the unshifted window order to that of the layer and back; None where the
    two are the same. `counts` has the number of windows of each mask class, in order.
    """

    order: Tensor | None
    inverse: Tensor | None
    counts: tuple[int, ...]


def shifted_windows(height: int, width: int, window: int, device: torch.device) -> Windows:
    """Build the windows of a shifted layer on a (height, width) image, sorted by mask class."""
    rows, cols = height // window, width // window
    shift = window // 2
    tokens = torch.arange(height * width, device=device)
    image = rearrange(tokens, "(nh nw wh ww) -> (nh wh) (nw ww)", nh=rows, nw=cols, wh=window, ww=window)
    shifted = torch.roll(image, (-shift, -shift), (0, 1))
    grid = rearrange(shifted, "(nh wh) (nw ww) -> nh nw (wh ww)", wh=window, ww=window)
    classes = (grid[:-1, :-1], grid[:-1, -1:], grid[-1:, :-1], grid[-1:, -1:])
    order = torch.cat([c.reshape(-1) for c in classes])
    inverse = torch.zeros_like(order).scatter_(0, order, tokens)
    return Windows(order, inverse, ((rows - 1) * (cols - 1), rows - 1, cols - 1, 1))


@lru_cache(maxsize=4)  # 16 bytes a pixel each
def cached_shifted_windows(height: int, width: int, window: int, device: torch.device) -> Windows:
    # Built outside inference mode, since training may use the same tensors later.
    with torch.inference_mode(False), torch.no_grad():
        return shifted_windows(height, width, window, device)


def layer_windows(
    height: int, width: int, window: int, device: torch.device, *, shifted: bool
) -> tuple[Windows, Windows]:
    """Build the windows of unshifted and of shifted layers on a (height, width) image; equal unless `shifted`."""
    plain = Windows(None, None, ((height // window) * (width // window),))
    build = shifted_windows if torch.compiler.is_compiling() else cached_shifted_windows
    return plain, build(height, width, window, device) if shifted else plain


def relative_position_index(window: int) -> Tensor:
    """Build the (N, N) index of token pairs into the bias table of (2 window - 1)**2 rows."""
    ys, xs = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    y, x = ys.flatten(), xs.flatten()
    dy, dx = y[:, None] - y[None, :], x[:, None] - x[None, :]
    return (dy + window - 1) * (2 * window - 1) + dx + window - 1


def class_masks(window: int) -> Tensor:
    """Build the (4, N, N) additive masks of a shifted layer: inside, right edge, bottom edge, corner."""
    shift = window // 2
    wrapped = torch.arange(window) >= window - shift
    down, right = wrapped.repeat_interleave(window), wrapped.repeat(window)
    across_x = right[:, None] != right[None, :]
    across_y = down[:, None] != down[None, :]
    parted = torch.stack([torch.zeros_like(across_x), across_x, across_y, across_x | across_y])
    return torch.where(parted, MASKED, 0.0)


def attn_mask(img_size: int, window: int) -> Tensor:
    """Build the (windows, N, N) mask of a training-size image, which released files hold and nothing reads."""
    n = img_size // window
    kind = torch.zeros(n, n, dtype=torch.long)
    kind[:, -1] += 1
    kind[-1, :] += 2
    return class_masks(window)[kind.flatten()]


def reflect_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Extend (B, C, H, W) at the bottom and right by reflection, as often as it takes for small images."""
    for dim in (2, 3):
        size = x.shape[dim]
        target = -(-size // multiple) * multiple
        if target != size:
            period = max(2 * size - 2, 1)
            position = torch.arange(target, device=x.device) % period
            x = x.index_select(dim, size - 1 - (position - (size - 1)).abs())
    return x


def in_windows(x: Tensor, window: int) -> Tensor:
    """View (B, C, H, W) as (B, rows, columns, window, window, C), which flattens to window order."""
    return rearrange(x, "b c (nh wh) (nw ww) -> b nh nw wh ww c", wh=window, ww=window)


def to_windows(x: Tensor, window: int) -> Tensor:
    """Convert (B, C, H, W) to (B, T, C) tokens in window order."""
    return in_windows(x, window).flatten(1, 4).contiguous()


def to_image(x: Tensor, window: int, size: torch.Size | tuple[int, int]) -> Tensor:
    """Convert (B, T, C) tokens in window order to (B, C, H, W)."""
    rows, cols = size[0] // window, size[1] // window
    return rearrange(x, "b (nh nw wh ww) c -> b c (nh wh) (nw ww)", nh=rows, nw=cols, wh=window, ww=window)


class Permute(torch.autograd.Function):
    """`x.index_select(1, order)` whose gradient is another gather instead of a scattered sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(order, inverse)
        return x.index_select(1, order)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        order, inverse = ctx.saved_tensors
        return Permute.apply(grad, inverse, order), None, None
