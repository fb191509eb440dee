"""Swin Transformer layer as one GPU kernel: the tokens of a window are read once, transformed, and written once.

The stream is an image (B, H, W, C) in float32, changed in place. A token's place follows from its window and the shift
by arithmetic, so nothing is rolled, permuted or cut into chunks. Norms, softmax and sums are computed in float32;
only operands of matrix products have fewer bits, if asked for.

Packed weights contain all that is linear, computed in float64: the norms' affine parts, the scale of the queries and
the 1 / sqrt(2) of GELU. The biases of keys and values need no place of their own. A bias of the keys adds the same
number to all logits of a query, which softmax cancels; one of the values passes through attention, whose weights sum to
one, into the projection's bias.
"""

import importlib.util
import math
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from swinir.models.eager_layer import attention_bias
from swinir.models.swinir import NetworkConfig, SwinTransformerLayer

CHUNK = 64  # channels held in one tensor: 48, 60, 180 and 240 pad to 64, 64, 192 and 256
TOKENS = 64  # rows of a window: 64 for a side of 8; of a side of 7, 49 are alive
MAX_DIM = 256
MAX_HEAD = 32
OLDEST_CAPABILITY = (8, 0)  # older GPUs get no tensor-core code from Triton
DEAD = -1e4  # logit of a padded key; finite in float16, and its exponential is zero


@dataclass(frozen=True)
class Launch:
    """Launch parameters of the kernel: they change the speed, not the output.

    Attributes:
        warps: of 32 threads, for a program.
        block: hidden channels of the MLP at a time.
        registers: limit for a thread; None leaves the choice to the compiler, which takes up to 255.
        windows: for a program; all of them use the weights that it reads.
        stages: 1 reads weights as they are needed, through the L1 cache; 2 and more prefetch them into shared memory.
        kernels: 1 for the whole layer; 2 for attention and MLP one after the other.
        step: 0 keeps the normalized tokens in registers. Else the products read them again, `step` channels at a time:
            for float32, whose operands are too large. Needs two kernels.
    """

    warps: int
    block: int = 64
    registers: int | None = None
    windows: int = 1
    stages: int = 1
    kernels: int = 1
    step: int = 0

    def __post_init__(self) -> None:
        assert self.step == 0 or self.kernels == 2


# By the largest width and the kind of product: 16 bits by Hopper's instructions, 16 bits by those of other GPUs, and
# float32. No row has been timed yet: the reasons come from offline compilation (scripts/fused_resources.py). One stage,
# since programs on a processor run in step and find the weights that others read in its L1 cache, around which
# prefetching goes.
LAUNCHES = {
    (48, "hopper"): Launch(warps=4, block=32, registers=128),  # four programs a processor; 96 hidden channels unpadded
    (48, "16 bits"): Launch(warps=4, block=32, registers=160),  # three programs; four would spill
    (64, "hopper"): Launch(warps=4, registers=128),  # four programs, no spills
    (64, "16 bits"): Launch(warps=4, registers=128),  # the same
    (192, "hopper"): Launch(warps=4),  # two programs; 8 warps split the columns of a window and read its rows twice
    (192, "16 bits"): Launch(warps=4, block=32),  # two programs; more spills with 64 channels
    (256, "hopper"): Launch(warps=8),  # no spills; 4 warps have them
    (256, "16 bits"): Launch(warps=8, block=32),  # the fewest spills
    (192, "float32"): Launch(warps=8, block=32, kernels=2, step=32),  # 8 KB of spills without a step
    (256, "float32"): Launch(warps=8, block=16, kernels=2, step=32),  # the MLP spills with blocks of 32
}


def fused_problem(config: NetworkConfig, device: torch.device) -> str | None:
    """Explain why the fused layer cannot run a network on a device; None if it can."""
    if device.type != "cuda" or torch.version.cuda is None:
        return f"the fused layer needs an NVIDIA GPU, got {device.type}"
    capability = torch.cuda.get_device_capability(device)
    if capability < OLDEST_CAPABILITY:
        return "the fused layer needs a GPU of compute capability 8.0 or newer, got {}.{}".format(*capability)
    if importlib.util.find_spec("triton") is None:
        return "the fused layer needs Triton, which is not installed"
    if config.window**2 > TOKENS:
        return f"the fused layer takes windows of at most {math.isqrt(TOKENS)} pixels, got {config.window}"
    if config.embed_dim > MAX_DIM:
        return f"the fused layer takes at most {MAX_DIM} channels, got {config.embed_dim}"
    largest = config.embed_dim // min(config.num_heads)
    if largest > MAX_HEAD:
        return f"the fused layer takes heads of at most {MAX_HEAD} channels, got {largest}"
    return None


def launch_for(dim: int, narrow: torch.dtype, capability: tuple[int, int]) -> Launch:
    """Choose the launch parameters for a width, the operands' dtype and a compute capability."""
    kind = "hopper" if capability[0] in (9, 10) else "16 bits"
    kind = "float32" if narrow == torch.float32 else kind
    return next(launch for (largest, of), launch in LAUNCHES.items() if of == kind and dim <= largest)


def candidates(dim: int, narrow: torch.dtype, capability: tuple[int, int]) -> list[Launch]:
    """List launch parameters worth timing on a GPU: the present ones, then the most promising first."""
    present = launch_for(dim, narrow, capability)
    if narrow == torch.float32:
        return [present, *(replace(present, **change) for change in ({"step": 16}, {"step": 64}, {"stages": 2}))]
    changes: list[dict[str, Any]] = [
        {"kernels": 2},
        {"warps": 8, "registers": 128},
        {"block": 96 - present.block},  # 32 for 64 and 64 for 32
        {"warps": 8, "windows": 2, "registers": None},
        {"stages": 2},
        {"registers": None},
        {"warps": 4, "kernels": 2, "registers": None},
        {"warps": 12 - present.warps, "registers": None},  # 4 for 8 and 8 for 4
    ]
    launches = [present, *(replace(present, **change) for change in changes)]
    return list(dict.fromkeys(launches))


class FusedLayer:
    """Copy of a Swin Transformer layer for Triton's kernel.

    Args:
        layer: on the device that the kernel shall run on.
        narrow: float32, bfloat16 or float16, of the operands of matrix products.
        launch: by default that of `launch_for`.
    """

    def __init__(self, layer: SwinTransformerLayer, narrow: torch.dtype, launch: Launch | None = None) -> None:
        from swinir.models import fused_kernels  # needs Triton, which is not everywhere

        self.kernel: Any = fused_kernels.swin_layer
        config = layer.config
        self.window, self.dim = config.window, config.embed_dim
        self.shift = 0 if layer.masks is None else self.window // 2
        self.launch = launch or launch_for(self.dim, narrow, _capability(layer.norm1.weight.device))
        with torch.inference_mode(False), torch.no_grad():
            self.weights = _pack_attention(layer, narrow) + _pack_mlp(layer, narrow, self.launch.block)
        self.parts = [(True, True)] if self.launch.kernels == 1 else [(True, False), (False, True)]  # attention, MLP
        self.eps = (layer.norm1.eps, layer.norm2.eps)
        self.constants = {
            "dim": self.dim,
            "chunk": CHUNK,
            "chunks": -(-self.dim // CHUNK),
            "heads": layer.attn.num_heads,
            "head": _padded_head(self.dim // layer.attn.num_heads),
            "hidden": self.weights[5].shape[1],
            "window": self.window,
            "tokens": TOKENS,
            "per": self.launch.windows,
            "block": self.launch.block,
            "step": self.launch.step,
            "narrow": getattr(fused_kernels.tl, str(narrow).removeprefix("torch.")),
        }

    def run(self, x: Tensor) -> None:
        """Apply the layer in place to x, a contiguous (B, H, W, C) float32 image of whole windows."""
        batch, height, width, dim = x.shape
        assert x.is_contiguous()
        assert (x.dtype, dim) == (torch.float32, self.dim)
        assert height % self.window == width % self.window == 0
        rows, cols = height // self.window, width // self.window
        windows = batch * rows * cols
        grid = (-(-windows // self.launch.windows),)
        # Triton launches on the current device.
        with torch.cuda.device(x.device) if x.is_cuda else nullcontext():
            for attention, mlp in self.parts:
                self.kernel[grid](
                    x,
                    *self.weights,
                    *self.eps,
                    windows,
                    rows,
                    cols,
                    self.shift,
                    **self.constants,
                    attention=attention,
                    mlp=mlp,
                    num_warps=self.launch.warps,
                    num_stages=self.launch.stages,
                    maxnreg=self.launch.registers,
                )


def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else OLDEST_CAPABILITY


def _pack_attention(layer: SwinTransformerLayer, narrow: torch.dtype) -> tuple[Tensor, ...]:
    """Weights of the attention: (C, 3 * heads * head), (heads * head), (heads * head, C), (C), (classes, heads, N, N).

    C, head and N are padded by zeros, keys of the table by `DEAD`.
    """
    attn, norm = layer.attn, layer.norm1
    heads, dim = attn.num_heads, layer.config.embed_dim
    channels, extra = -dim % CHUNK, _padded_head(dim // heads) - dim // heads
    # The kernel's exponential is 2**x.
    to_base_2 = math.log2(math.e)
    qkv, bias = _after_norm(attn.qkv.weight, attn.qkv.bias, norm)
    weight = rearrange(qkv, "(three heads d) c -> three heads d c", three=3, heads=heads)
    weight[0] *= attn.scale * to_base_2
    q_bias, _, v_bias = rearrange(bias, "(three heads d) -> three heads d", three=3, heads=heads)
    proj = attn.proj.weight.double()
    proj_bias = attn.proj.bias.double() + proj @ v_bias.flatten()

    weight = rearrange(F.pad(weight, (0, channels, 0, extra)), "three heads d c -> c (three heads d)")
    q_bias = F.pad(q_bias * (attn.scale * to_base_2), (0, extra)).flatten()
    proj = F.pad(rearrange(proj, "c (heads d) -> heads d c", heads=heads), (0, channels, 0, extra)).flatten(0, 1)
    table = attention_bias(attn, layer.masks).double()
    padding = TOKENS - table.shape[-1]
    table = F.pad(F.pad(table * to_base_2, (0, padding), value=DEAD), (0, 0, 0, padding))
    # Logits need the bits that bfloat16 lacks more than its range.
    bits = torch.float32 if narrow == torch.float32 else torch.float16
    return (
        _packed(weight, narrow),
        _packed(q_bias, torch.float32),
        _packed(proj, narrow),
        _packed(F.pad(proj_bias, (0, channels)), torch.float32),
        _packed(table, bits),
    )


def _pack_mlp(layer: SwinTransformerLayer, narrow: torch.dtype, block: int) -> tuple[Tensor, ...]:
    """Weights of the MLP: (C, hidden), (hidden), (hidden, C), (C), hidden padded to whole blocks."""
    fc1, bias = _after_norm(layer.mlp.fc1.weight, layer.mlp.fc1.bias, layer.norm2)
    fc2 = layer.mlp.fc2.weight.double()
    channels, hidden = -layer.config.embed_dim % CHUNK, -len(fc1) % block
    # GELU(x) = x / 2 * (1 + erf(x / sqrt(2))) = (u + u * erf(u)) / sqrt(2) with u = x / sqrt(2).
    return (
        _packed(F.pad(fc1.t() * 0.5**0.5, (0, hidden, 0, channels)), narrow),
        _packed(F.pad(bias * 0.5**0.5, (0, hidden)), torch.float32),
        _packed(F.pad(fc2.t() * 0.5**0.5, (0, channels, 0, hidden)), narrow),
        _packed(F.pad(layer.mlp.fc2.bias, (0, channels)), torch.float32),
    )


def _after_norm(weight: Tensor, bias: Tensor | None, norm: torch.nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """Weight and bias in float64 of a linear layer and the affine part of the norm before it."""
    weight = weight.double()
    shift = weight @ norm.bias.double()
    return weight * norm.weight.double(), shift if bias is None else shift + bias.double()


def _packed(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype, copy=True).contiguous()


def _padded_head(head: int) -> int:
    return max(16, 1 << (head - 1).bit_length())  # a matrix product takes at least 16 columns
