"""A Swin Transformer layer for inference from PyTorch's own operators, for CPUs, and for GPUs without Triton.

The layer works on rectangles of windows that fit a processor's cache: their tokens are gathered, the whole layer is
computed on them, and they are written back. Its working memory depends on the rectangle, not on the image.

The scale of the queries and, where it pays, zeros up to a faster head size go into the linear layers; position bias
and mask become one table for each class of windows; linear layers are packed by oneDNN on CPUs.
"""

import functools
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from swinir.models.swinir import SwinTransformerLayer, WindowAttention
from swinir.models.workers import each

CHUNK_TOKENS = {"cpu": 4096}  # large enough for efficient products, small enough for the cache
CHUNK_TOKENS_DEFAULT = 65536  # on other devices: enough parallel work
MAX_PRODUCTS = 65535  # matrix products that a GPU takes in one call
MAX_GRAPHS = 64  # compiled forms of one function: two for each width, precision and device


class EagerLayer:
    """The paper's STL (Section 3.2): X = MSA(LN(X)) + X, then X = MLP(LN(X)) + X.

    Args:
        layer: the layer to copy.
        narrow: dtype of the operands of matrix products; norms and sums are in float32 or wider.
        compile: compile the work on a rectangle by torch.compile. It replaces the packed layers of a CPU.
    """

    def __init__(self, layer: SwinTransformerLayer, narrow: torch.dtype, *, compile: bool) -> None:
        self.window, self.shift = layer.config.window, 0 if layer.masks is None else layer.config.window // 2
        self.narrow, self.compile = narrow, compile
        self.norm1, self.norm2 = _Norm(layer.norm1), _Norm(layer.norm2)
        self.attention = _Attention(layer.attn, layer.masks, narrow, packed=not compile)
        self.fc1 = Linear(layer.mlp.fc1.weight, layer.mlp.fc1.bias, narrow, packed=not compile, gelu=True)
        self.fc2 = Linear(layer.mlp.fc2.weight, layer.mlp.fc2.bias, narrow, packed=not compile)
        chunk = CHUNK_TOKENS.get(layer.norm1.weight.device.type, CHUNK_TOKENS_DEFAULT)
        self.max_windows = max(1, min(chunk // self.window**2, MAX_PRODUCTS // self.attention.heads))

    def run(self, x: Tensor) -> None:
        """Apply the layer in place to the stream x, (B, H, W, C); H and W are multiples of the window."""
        pieces = rectangles(x.shape, self.window, self.shift, self.max_windows)
        if x.device.type == "cpu" and not self.compile:
            each(pieces, partial(self._on, x))
            return
        for rectangle in pieces:
            self._on(x, rectangle)

    def _on(self, x: Tensor, rectangle: "Rectangle") -> None:
        tokens, bias = rectangle.gather(x), self.attention.biases[rectangle.kind]
        if self.compile:
            torch._dynamo.maybe_mark_dynamic(tokens, 0)  # one compilation serves any number of windows
            tokens = _compiled_transform()(self, tokens, bias)
        else:
            tokens = self._transform(tokens, bias)
        rectangle.scatter(tokens, x)

    def _transform(self, x: Tensor, bias: Tensor) -> Tensor:
        """Transform the tokens (windows, N, C) of windows that share a bias."""
        x = x + self.attention(self.norm1(x).to(self.narrow), bias)
        return x + self.fc2(self.fc1(self.norm2(x).to(self.narrow)))


@functools.cache
def _compiled_transform() -> Callable[[EagerLayer, Tensor, Tensor], Tensor]:
    # Layers of equal shapes share a compilation. Beyond the limit the compiler would silently run others eagerly.
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, MAX_GRAPHS)
    return torch.compile(EagerLayer._transform, dynamic=False)  # but for the marked number of windows


class Stretch(NamedTuple):
    """Pixels along one axis, those at the places `inside` of each of `windows` consecutive windows."""

    pixels: slice
    windows: int
    inside: slice


class Rectangle(NamedTuple):
    """Adjacent windows of one mask class: 0 inside, 1 at the right edge, 2 at the bottom edge, 3 in the corner.

    The cyclic shift tears the windows at an edge into two stretches on opposite sides of the image.
    """

    kind: int
    window: int
    rows: list[Stretch]
    cols: list[Stretch]

    @property
    def place(self) -> tuple[int, int, int, int]:
        """The first pixel, (y, x), and the number of windows, (rows, columns)."""
        rows, cols = self.rows[0], self.cols[0]
        return rows.pixels.start, cols.pixels.start, rows.windows, cols.windows

    def gather(self, x: Tensor) -> Tensor:
        """Copy the tokens, (B * windows, N, C), from the stream x, (B, H, W, C)."""
        tokens = x.new_empty(self._shape(x))
        for ours, theirs in self._pairs(tokens, x):
            ours.copy_(theirs)
        return tokens.view(-1, self.window**2, x.shape[-1])

    def scatter(self, tokens: Tensor, x: Tensor) -> None:
        """Write the tokens back to the stream."""
        for ours, theirs in self._pairs(tokens.view(self._shape(x)), x):
            theirs.copy_(ours)

    def _shape(self, x: Tensor) -> tuple[int, ...]:
        return x.shape[0], self.rows[0].windows, self.cols[0].windows, self.window, self.window, x.shape[-1]

    def _pairs(self, tokens: Tensor, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Views of the tokens, (B, rows, columns, window, window, C), and of the image, one for each stretch."""
        for rows, cols in product(self.rows, self.cols):
            part = x[:, rows.pixels, cols.pixels]
            image = rearrange(part, "b (nh wh) (nw ww) c -> b nh nw wh ww c", nh=rows.windows, nw=cols.windows)
            yield tokens[:, :, :, rows.inside, cols.inside], image


def rectangles(shape: tuple[int, ...], window: int, shift: int, max_windows: int) -> Iterator[Rectangle]:
    """Divide the windows of a stream (B, H, W, C) into rectangles of at most `max_windows`, or one of each image."""
    batch, height, width, _ = shape
    most = max(1, max_windows // batch)
    for down, across in product(_runs(height, window, shift), _runs(width, window, shift)):
        cols_step = min(across.num, most)
        for rows, cols in product(down.split(most // cols_step), across.split(cols_step)):
            yield Rectangle(2 * down.torn + across.torn, window, rows, cols)


class _Run(NamedTuple):
    """Consecutive windows along an axis of `size` pixels: whole ones, or the one that the shift tears apart."""

    size: int
    window: int
    shift: int
    num: int
    torn: bool

    def split(self, step: int) -> Iterator[list[Stretch]]:
        """Yield the stretches of `step` windows at a time."""
        if self.torn:
            kept = self.window - self.shift
            before = Stretch(slice(self.size - kept, self.size), 1, slice(0, kept))
            yield [before, Stretch(slice(0, self.shift), 1, slice(kept, self.window))]
            return
        for first in range(0, self.num, step):
            last = min(first + step, self.num)
            pixels = slice(first * self.window + self.shift, last * self.window + self.shift)
            yield [Stretch(pixels, last - first, slice(0, self.window))]


def _runs(size: int, window: int, shift: int) -> list[_Run]:
    whole = _Run(size, window, shift, size // window - (shift > 0), torn=False)
    torn = _Run(size, window, shift, 1, torn=True)
    return [run for run, exists in ((whole, whole.num > 0), (torn, shift > 0)) if exists]


class _Norm:
    """Layer normalisation over channels, in float32 or wider."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        wide = torch.promote_types(norm.weight.dtype, torch.float32)
        self.weight, self.bias = (t.detach().to(wide, copy=True) for t in (norm.weight, norm.bias))
        self.eps = norm.eps

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class _Attention:
    """Multi-head self-attention inside windows of one class (Section 3.2)."""

    def __init__(self, attn: WindowAttention, masks: Tensor | None, narrow: torch.dtype, *, packed: bool) -> None:
        self.heads = attn.num_heads
        weight, bias, proj = scaled_qkv(attn, attn.scale)
        # Measured: on CPUs the fused kernel is the faster one in float32, separate products in 16 bits.
        on_cpu = weight.device.type == "cpu"
        self.fused = not on_cpu or narrow.itemsize > 2
        extra = 0 if self.fused and on_cpu else _padding(proj.shape[-1], on_cpu)
        weight, bias, proj = F.pad(weight, (0, 0, 0, extra)), F.pad(bias, (0, extra)), F.pad(proj, (0, extra))
        self.qkv = Linear(weight.flatten(0, 2), bias.flatten(), narrow, packed=packed)
        self.proj = Linear(proj.flatten(1), attn.proj.bias, narrow, packed=packed)
        table = attention_bias(attn, masks)
        # (classes, heads, N, N), in rows of whole vectors: a GPU's kernels would copy others for every window.
        self.biases = F.pad(table.to(narrow, copy=True), (0, -table.shape[-1] % 8))[..., : table.shape[-1]]

    def __call__(self, x: Tensor, bias: Tensor) -> Tensor:
        """Attend inside each of the windows, (windows, N, C) tokens that share a bias."""
        q, k, v = rearrange(self.qkv(x), "n t (three heads d) -> three n heads t d", three=3, heads=self.heads)
        if self.fused:
            x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None], scale=1.0)
        else:
            logits = (q @ k.transpose(-2, -1)).add_(bias)
            x = logits.softmax(-1) @ v
        return self.proj(rearrange(x, "n heads t d -> n t (heads d)"))


def scaled_qkv(attn: WindowAttention, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Copy the weight (3, heads, d, C) and bias (3, heads, d) of qkv, with scaled queries.

    The third is a view (C, heads, d) of the projection's weight.
    """
    weight = rearrange(attn.qkv.weight, "(three heads d) c -> three heads d c", three=3, heads=attn.num_heads).clone()
    bias = torch.zeros_like(weight[..., 0])
    if attn.qkv.bias is not None:
        bias.copy_(attn.qkv.bias.view_as(bias))
    weight[0] *= scale
    bias[0] *= scale
    return weight, bias, rearrange(attn.proj.weight, "c (heads d) -> c heads d", heads=attn.num_heads)


def attention_bias(attn: WindowAttention, masks: Tensor | None) -> Tensor:
    """Add the masks to the position bias: (classes, heads, N, N)."""
    return attn.bias()[None] if masks is None else attn.bias() + masks[:, None]


class Linear:
    """y = x W^T + b or its GELU, packed by oneDNN where PyTorch offers it for the device and dtype."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, *, packed: bool = True, gelu: bool = False
    ) -> None:
        self.gelu = gelu
        self.weight = weight.detach().to(dtype, copy=True)
        self.bias = None if bias is None else bias.detach().to(dtype, copy=True)
        self.packed = _pack(self.weight) if packed else None

    def __call__(self, x: Tensor) -> Tensor:
        if self.packed is None:
            y = F.linear(x, self.weight, self.bias)
            return F.gelu(y) if self.gelu else y
        activation, algorithm = ("gelu", "none") if self.gelu else ("none", "")
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, activation, [], algorithm)


def _padding(head: int, on_cpu: bool) -> int:
    """Count the zeros to add to a head's size: on CPUs up to full vectors, if that is at most an eighth more work."""
    extra = -head % 16
    if on_cpu:
        return extra if 8 * extra <= head else 0
    return -head % 8  # what the memory-efficient kernels of a GPU ask for


def _pack(weight: Tensor) -> Tensor | None:
    """Convert a weight to oneDNN's layout, or None; the operators are those of PyTorch's compiler on CPUs."""
    if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.bfloat16):
        return None
    try:
        packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
        torch.ops.mkldnn._linear_pointwise(weight[:1], packed, None, "none", [], "")
    except (AttributeError, RuntimeError):  # not in this build, or not on this processor
        return None
    return packed
