"""A Swin Transformer layer for inference on CPUs: oneDNN's linear layers between our own kernels.

    stream -> LN -> tokens -> qkv -> attention -> projection -> stream + change, LN -> tokens -> MLP -> stream + change

Each thread works on rectangles of windows that fit its core's cache; gathering, norms and additions are one pass.
"""

from functools import partial

import torch
from torch import Tensor, nn

from swinir.models import kernels
from swinir.models.eager_layer import Linear, Rectangle, attention_bias, rectangles, scaled_qkv
from swinir.models.swinir import SwinTransformerLayer
from swinir.models.workers import each

CHUNK = 3 * 2**16  # values of the stream in a rectangle: less fit a cache better, more need fewer calls


def cpu_problem(dtype: torch.dtype) -> str | None:
    """Explain why the layer cannot copy weights of a dtype here; None if it can."""
    if dtype != torch.float32:
        return (
            f"the kernels for CPUs compute in float32 or bfloat16, got weights in {str(dtype).removeprefix('torch.')}"
        )
    return kernels.problem()


class CpuLayer:
    """The paper's STL (Section 3.2): X = MSA(LN(X)) + X, then X = MLP(LN(X)) + X.

    Args:
        layer: the layer to copy, on the CPU, in float32.
        narrow: dtype of the operands of linear layers and attention, float32 or bfloat16.
    """

    def __init__(self, layer: SwinTransformerLayer, narrow: torch.dtype) -> None:
        attn, channels = layer.attn, layer.norm1.weight.numel()
        self.window, self.shift = layer.config.window, 0 if layer.masks is None else layer.config.window // 2
        self.narrow, self.heads = narrow, attn.num_heads
        weight, bias, proj = scaled_qkv(attn, attn.scale * kernels.LOG2E)
        self.qkv = Linear(weight.flatten(0, 2), bias.flatten(), narrow)
        self.proj = Linear(proj.flatten(1), attn.proj.bias, narrow)
        self.fc1 = Linear(layer.mlp.fc1.weight, layer.mlp.fc1.bias, narrow, gelu=True)
        self.fc2 = Linear(layer.mlp.fc2.weight, layer.mlp.fc2.bias, narrow)
        self.biases = kernels.bias_table(attention_bias(attn, layer.masks))
        self.norms = [_parameters(norm) for norm in (layer.norm1, layer.norm2)]
        is_narrow = narrow == torch.bfloat16
        self._attend = kernels.attention(self.window**2, weight.shape[2], narrow=is_narrow)
        stream = partial(kernels.stream_kernel, channels, self.window, narrow=is_narrow)
        self._enter, self._pass = stream(add=False, norm=True), stream(add=True, norm=True)
        self._leave = stream(add=True, norm=False)

    def run(self, x: Tensor) -> None:
        """Apply the layer in place to the stream x, (B, H, W, C) in float32; H and W are multiples of the window."""
        assert x.is_contiguous()
        most = max(1, CHUNK // (self.window**2 * x.shape[-1]))
        each(rectangles(x.shape, self.window, self.shift, most), partial(self._transform, x))

    def _transform(self, x: Tensor, rectangle: Rectangle) -> None:
        batch, height, width, channels = x.shape
        y0, x0, rows, cols = rectangle.place
        size = self.window**2
        tokens = torch.empty(batch * rows * cols, size, channels, dtype=self.narrow)
        place = batch, height, width, y0, x0, rows, cols
        self._enter(x, tokens, tokens, *self.norms[0], *place)
        qkv = self.qkv(tokens).view(-1, size, 3, self.heads, channels // self.heads)
        self._attend(qkv, self.biases[rectangle.kind], tokens)
        del qkv
        self._pass(x, self.proj(tokens), tokens, *self.norms[1], *place)
        self._leave(x, self.fc2(self.fc1(tokens)), tokens, *self.norms[1], *place)


def _parameters(norm: nn.LayerNorm) -> tuple[Tensor, Tensor, float]:
    return norm.weight.detach().clone(), norm.bias.detach().clone(), norm.eps
