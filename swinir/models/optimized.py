"""SwinIR optimized for inference: the output of `SwinIR.forward`, sooner and in less memory.

The stream is one (B, T, C) tensor of tokens in window order, changed in place. A Swin Transformer layer processes
chunks of windows that fit a processor's cache, so its working memory depends on the chunk, not on the image.

Weights are converted once. The scale of the queries, and where it pays zeros up to a faster head size, go into the
linear layers; position bias and mask become one table for each class of windows; linear layers are packed by oneDNN
on CPUs; the linear end of "pixelshuffle" becomes one convolution.
"""

import copy
import functools
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from swinir.models.graphs import Recording
from swinir.models.reconstruction import Reconstruction
from swinir.models.swinir import RSTB, SwinIR, SwinTransformerLayer, WindowAttention, framed
from swinir.models.windows import Windows, in_windows, layer_windows, to_windows

PRECISIONS = ("fp32", "bf16", "auto")
CHUNK_TOKENS = {"cpu": 4096}  # large enough for efficient products, small enough for the cache
CHUNK_TOKENS_DEFAULT = 65536  # on other devices: enough parallel work
MAX_RECORDINGS = 3  # CUDA graphs kept, each with the memory of a whole run
MAX_PRODUCTS = 65535  # matrix products that a GPU takes in one call


class OptimizedSwinIR:
    """(B, in_chans, H, W) in [0, 1] to (B, in_chans, H*upscale, W*upscale), as `SwinIR`, without gradients.

    It holds copies: later changes of `model` do not reach it. Make it by `optimize`.

    Args:
        model: the network to copy, on any device, in any mode.
        precision: "fp32" computes in the weights' own dtype. In "bf16" the operands of linear layers, attention and
            the RSTBs' convolutions have 16 bits; the stream, norms and the reconstruction do not.
        compile: fuse the work of a layer on a chunk by torch.compile, and on a GPU record the network as a CUDA graph
            for each of the last few sizes. It is for GPUs: on CPUs the packed layers that it replaces are as fast.
    """

    def __init__(self, model: SwinIR, precision: str = "fp32", *, compile: bool = False) -> None:
        assert precision in ("fp32", "bf16")
        self.config, self.precision = model.config, precision
        self.device, self.dtype = model.conv_first.weight.device, model.conv_first.weight.dtype
        wide = torch.promote_types(self.dtype, torch.float32)
        narrow = torch.bfloat16 if precision == "bf16" else self.dtype
        # Channels-last convolutions save 2 % of the time, but on CPUs they sum all products in one go: three times
        # the rounding error of the others, enough to move the metrics of small images in the sixth digit.
        layout = torch.contiguous_format if narrow == wide else torch.channels_last
        form = self.form = Form(wide, narrow, layout, compile)
        self.recordings: OrderedDict[torch.Size, Recording] = OrderedDict()
        with torch.inference_mode(False), torch.no_grad():
            self._source = copy.deepcopy(model) if precision == "bf16" else None
            self.mean = model.mean.to(wide, copy=True)
            self.position = model.absolute_pos_embed.to(wide, copy=True) if self.config.ape else None
            self.conv_first = _ready(model.conv_first, wide, layout)
            norm = model.patch_embed.norm
            self.patch_norm = None if norm is None else _ready(norm, wide)
            self.layers = [OptimizedRSTB(layer, form) for layer in model.layers]  # type: ignore[arg-type]
            self.norm = _ready(model.norm, wide)
            self.conv_after_body = _ready(model.conv_after_body, narrow, layout)
            self.reconstruction = _optimize_reconstruction(model, wide, layout)

    @functools.cached_property
    def exact(self) -> "OptimizedSwinIR":
        """The same network in fp32, for images whose values bf16 cannot hold."""
        if self._source is None:
            return self
        return OptimizedSwinIR(self._source, "fp32", compile=self.form.compile)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        if not (self.form.compile and x.is_cuda):
            return self._compute(x)
        if x.shape not in self.recordings:
            while len(self.recordings) >= MAX_RECORDINGS:
                self.recordings.popitem(last=False)
            height, width = (-(-side // self.config.window) * self.config.window for side in x.shape[-2:])
            held = layer_windows(height, width, self.config.window, x.device, shifted=self.config.shifted)
            self.recordings[x.shape] = Recording(self._compute, x, held)
        self.recordings.move_to_end(x.shape)
        return self.recordings[x.shape](x)

    def _compute(self, x: Tensor) -> Tensor:
        return framed(self.config, self.mean, x.to(self.mean.dtype), self._restore).to(self.dtype)

    def _restore(self, x: Tensor) -> Tensor:
        """Map the normalised input to the normalised output."""
        size, window = (x.shape[-2], x.shape[-1]), self.config.window
        shallow = self.conv_first(x.contiguous(memory_format=self.form.layout))
        stream = to_windows(shallow, window)
        stream = stream.clone() if self.patch_norm is None else self.patch_norm(stream)
        if self.position is not None:
            stream += to_windows(rearrange(self.position, "b (h w) c -> b c h w", h=size[0]), window)
        plain, shifted = layer_windows(*size, window, x.device, shifted=self.config.shifted)
        for layer in self.layers:
            layer.run(stream, size, plain, shifted)
        image = _image(self.norm(stream), size, window, self.conv_after_body, self.form.layout)
        del stream
        deep = shallow.add_(self.conv_after_body(image))
        del image
        return self.reconstruction(deep, x)


def optimize(model: SwinIR, precision: str = "fp32", *, compile: bool = False) -> OptimizedSwinIR:
    """Copy a network's present weights into a form that is faster and takes less memory, for inference only.

    `swinir.restore` does this itself at each call with a SwinIR; hold the optimized form to restore many images.

    Args:
        precision: "fp32", "bf16", or "auto": bf16 on GPUs that compute in it natively, else fp32.
        compile: see `OptimizedSwinIR`.

    Raises:
        ValueError: for an unknown precision.
    """
    device = model.conv_first.weight.device
    return OptimizedSwinIR(model, resolve_precision(precision, device), compile=compile)


def resolve_precision(precision: str, device: torch.device) -> str:
    """Turn "auto" into bf16 where a GPU computes in it natively, else fp32."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision != "auto":
        return precision
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if native else "fp32"


class Form(NamedTuple):
    """Dtypes, memory layout and compilation, the same for all parts of an optimized network."""

    wide: torch.dtype  # of the stream, the norms, and the reconstruction
    narrow: torch.dtype  # of the operands of products
    layout: torch.memory_format  # of images and the convolutions' weights
    compile: bool


class OptimizedRSTB:
    """Residual Swin Transformer block (Section 3.2)."""

    def __init__(self, block: RSTB, form: Form) -> None:
        self.window, self.layout = block.window, form.layout
        self.layers = [OptimizedLayer(layer, form) for layer in block.residual_group.blocks]  # type: ignore[arg-type]
        self.conv, self.residual = _ready(block.conv, form.narrow, form.layout), block.residual

    def run(self, x: Tensor, size: tuple[int, int], plain: Windows, shifted: Windows) -> None:
        """Apply the block in place to the stream x of an image of `size`."""
        deep = x.clone()
        for layer in self.layers:
            layer.run(deep, shifted if layer.shifted else plain)
        image = _image(deep, size, self.window, self.conv, self.layout)
        del deep
        grid = in_windows(self.conv(image), self.window)
        if self.residual:
            x.view(grid.shape).add_(grid)
        else:
            x.view(grid.shape).copy_(grid)


class OptimizedLayer:
    """The paper's STL (Section 3.2): X = MSA(LN(X)) + X, then X = MLP(LN(X)) + X."""

    def __init__(self, layer: SwinTransformerLayer, form: Form) -> None:
        self.shifted = layer.masks is not None
        self.tokens = layer.config.window**2
        self.narrow, self.compile = form.narrow, form.compile
        self.norm1, self.norm2 = _ready(layer.norm1, form.wide), _ready(layer.norm2, form.wide)
        self.attention = OptimizedAttention(layer.attn, layer.masks, form)
        self.fc1 = Linear(layer.mlp.fc1.weight, layer.mlp.fc1.bias, form, gelu=True)
        self.fc2 = Linear(layer.mlp.fc2.weight, layer.mlp.fc2.bias, form)
        chunk = CHUNK_TOKENS.get(layer.norm1.weight.device.type, CHUNK_TOKENS_DEFAULT)
        self.chunk_windows = min(chunk // self.tokens, MAX_PRODUCTS // self.attention.heads)

    def run(self, x: Tensor, windows: Windows) -> None:
        """Apply the layer in place to the stream x, chunk by chunk."""
        change = _compiled_change() if self.compile else OptimizedLayer.change
        for first, count, kind in _chunks(windows.counts, max(1, self.chunk_windows // len(x))):
            part = slice(first * self.tokens, (first + count) * self.tokens)
            bias = self.attention.biases[kind]
            if windows.order is None:
                chunk = x[:, part]
                chunk += change(self, chunk, bias)
            else:
                index = windows.order[part]
                x.index_add_(1, index, change(self, x.index_select(1, index), bias))

    def change(self, x: Tensor, bias: Tensor) -> Tensor:
        """Compute what the layer adds to the tokens (B, windows * N, C) of windows that share a bias."""
        attended = self.attention(self.norm1(x).to(self.narrow), bias).to(x.dtype)
        hidden = self.fc1(self.norm2(x + attended).to(self.narrow))
        return attended + self.fc2(hidden)


@functools.cache
def _compiled_change() -> Callable[[OptimizedLayer, Tensor, Tensor], Tensor]:
    # One compilation serves all layers, which differ in their tensors only.
    return torch.compile(OptimizedLayer.change)


class OptimizedAttention:
    """Multi-head self-attention inside windows of one class (Section 3.2)."""

    def __init__(self, attn: WindowAttention, masks: Tensor | None, form: Form) -> None:
        self.heads = attn.num_heads
        weight = rearrange(attn.qkv.weight, "(three heads d) c -> three heads d c", three=3, heads=self.heads).clone()
        bias = torch.zeros_like(weight[..., 0])
        if attn.qkv.bias is not None:
            bias.copy_(attn.qkv.bias.view_as(bias))
        weight[0] *= attn.scale
        bias[0] *= attn.scale
        proj = rearrange(attn.proj.weight, "c (heads d) -> c heads d", heads=self.heads)
        # Measured: on CPUs the fused kernel is the faster one in float32, separate products in 16 bits.
        on_cpu = weight.device.type == "cpu"
        self.fused = not on_cpu or form.narrow.itemsize > 2
        extra = 0 if self.fused and on_cpu else _padding(proj.shape[-1], on_cpu)
        weight, bias, proj = F.pad(weight, (0, 0, 0, extra)), F.pad(bias, (0, extra)), F.pad(proj, (0, extra))
        self.qkv = Linear(weight.flatten(0, 2), bias.flatten(), form)
        self.proj = Linear(proj.flatten(1), attn.proj.bias, form)
        table = attn.bias()[None] if masks is None else attn.bias() + masks[:, None]
        self.biases = table.to(form.narrow, copy=True)  # (classes, heads, N, N)

    def __call__(self, x: Tensor, bias: Tensor) -> Tensor:
        """Attend inside each of the windows, (B, windows * N, C) tokens that share a bias."""
        batch = len(x)
        q, k, v = rearrange(
            self.qkv(x), "b (n t) (three heads d) -> three (b n) heads t d", three=3, t=bias.shape[-1], heads=self.heads
        )
        if self.fused:
            x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None].expand(len(q), -1, -1, -1), scale=1.0)
        else:
            logits = (q @ k.transpose(-2, -1)).add_(bias)
            x = logits.softmax(-1) @ v
        return self.proj(rearrange(x, "(b n) heads t d -> b (n t) (heads d)", b=batch))


class Linear:
    """y = x W^T + b or its GELU, packed by oneDNN where PyTorch offers it for the device and dtype."""

    def __init__(self, weight: Tensor, bias: Tensor | None, form: Form, *, gelu: bool = False) -> None:
        self.gelu = gelu
        self.weight = weight.detach().to(form.narrow, copy=True)
        self.bias = None if bias is None else bias.detach().to(form.narrow, copy=True)
        self.packed = None if form.compile else _pack(self.weight)

    def __call__(self, x: Tensor) -> Tensor:
        if self.packed is None:
            y = F.linear(x, self.weight, self.bias)
            return F.gelu(y) if self.gelu else y
        activation, algorithm = ("gelu", "none") if self.gelu else ("none", "")
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, activation, [], algorithm)


def _optimize_reconstruction(model: SwinIR, dtype: torch.dtype, layout: torch.memory_format) -> Reconstruction:
    """Copies of the steps; of "pixelshuffle", all after the only activation in one."""
    steps, residual = model.reconstruction()
    ready = tuple(_ready(step, dtype, layout) for step in steps)
    if model.config.upsampler == "pixelshuffle":
        before, upsample, last = ready
        ready = before, MergedShuffles(upsample, last, layout)
    return Reconstruction(ready, residual)


class MergedShuffles(nn.Module):
    """The linear end of "pixelshuffle", all after its only activation, as one 5x5 convolution and one shuffle.

    The original convolutions each pad their own input with zeros. Output that depends on pixels within two of the edge
    is therefore computed by them, in strips of four.
    """

    def __init__(
        self, upsample: nn.Module, conv_last: nn.Module, layout: torch.memory_format = torch.contiguous_format
    ) -> None:
        super().__init__()
        self.long_way = nn.Sequential(upsample, conv_last)
        exact = copy.deepcopy(self.long_way).to("cpu", torch.float64)
        feat = next(upsample.parameters()).shape[1]
        zeros = torch.zeros(1, feat, 5, 5, dtype=torch.float64)
        impulses = zeros.repeat(feat, 1, 1, 1)
        impulses[range(feat), range(feat), 2, 2] = 1
        rest = exact(zeros)
        response = exact(impulses) - rest
        self.scale = scale = rest.shape[-1] // 5
        weight = rearrange(response, "i c (ky dy) (kx dx) -> (c dy dx) i ky kx", dy=scale, dx=scale).flip(2, 3)
        bias = rest[0, :, 2 * scale : 3 * scale, 2 * scale : 3 * scale].flatten()
        like = next(conv_last.parameters())
        self.weight = weight.to(like).contiguous(memory_format=layout)
        self.bias = bias.to(like)

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[-2:]) < 4:
            result: Tensor = self.long_way(x)
            return result
        out = F.pixel_shuffle(F.conv2d(x, self.weight, self.bias, padding=2), self.scale)
        edge = 2 * self.scale
        out[..., :edge, :] = self.long_way(x[..., :4, :])[..., :edge, :]
        out[..., -edge:, :] = self.long_way(x[..., -4:, :])[..., -edge:, :]
        out[..., :edge] = self.long_way(x[..., :4])[..., :edge]
        out[..., -edge:] = self.long_way(x[..., -4:])[..., -edge:]
        return out


def _ready(module: nn.Module, dtype: torch.dtype, layout: torch.memory_format = torch.contiguous_format) -> nn.Module:
    """Copy a module for inference."""
    ready = copy.deepcopy(module).requires_grad_(False).eval()
    return ready.to(dtype).to(memory_format=layout)


def _image(x: Tensor, size: tuple[int, int], window: int, conv: nn.Module, layout: torch.memory_format) -> Tensor:
    """Convert (B, T, C) tokens in window order to (B, C, H, W) in the dtype of `conv`."""
    dtype = next(conv.parameters()).dtype
    image = torch.empty(len(x), x.shape[-1], *size, dtype=dtype, device=x.device, memory_format=layout)
    grid = in_windows(image, window)
    grid.copy_(x.view(grid.shape))
    return image


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


def _chunks(counts: tuple[int, ...], size: int) -> Iterator[tuple[int, int, int]]:
    """Yield (first window, number of windows, class) of chunks; no chunk has windows of two classes."""
    first = 0
    for kind, count in enumerate(counts):
        for start in range(0, count, size):
            yield first + start, min(size, count - start), kind
        first += count
