"""SwinIR (Liang et al., ICCVW 2021): tensors in, tensors out; no files, no tasks.

    I_LQ -> conv_first -> F_0 ------------------------------------- + -> reconstruction -> I_RHQ
                           \\-> K RSTBs -> norm -> conv_after_body -> F_DF

Shallow features F_0 = H_SF(I_LQ) are one convolution, deep features F_DF = H_DF(F_0) are K residual Swin Transformer
blocks (RSTB) and a convolution, and the output is I_RHQ = H_REC(F_0 + F_DF) (Section 3.1). An RSTB is a stack of Swin
Transformer layers (STL) closed by a convolution and a residual (Section 3.2). Attention runs inside windows of
N = window_size**2 tokens; every second layer shifts the windows by half their side.

Between RSTBs features are images (B, C, H, W); inside they are (B, T, C) tokens in window order, see
`swinir.models.windows`. This form is the one to train; `swinir.models.optimized` copies it into a faster one.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from swinir.models.phases import Axis, PhaseWeights, enlarged, whole
from swinir.models.reconstruction import Reconstruction, check_upsampler, reconstruction_modules
from swinir.models.windows import (
    Permute,
    Windows,
    attn_mask,
    class_masks,
    layer_windows,
    reflect_to_multiple,
    relative_position_index,
    to_image,
    to_windows,
)

RESI_CONNECTIONS = ("1conv", "3conv", "1x1", "none")  # the end of an RSTB (Table 1)
MAX_SIZE = 2**22  # of any option, in channels or pixels
MAX_LAYERS = 1024  # Swin Transformer layers; the largest released network has 54
MAX_PARAMETERS = 2**33  # of all layers, roughly; the largest released network has 28 million
RGB_MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K; subtracted from three-channel input


@dataclass(frozen=True)
class NetworkConfig:
    """The options of the network, by the released program's names; checked on construction.

    `upscale` is whole, except for the upsampler "any": any number from 1 on, the scale that the network runs at, and in
    a file the largest one that it was trained for.
    `img_size` is the side of training patches in low-quality pixels. It fixes the shape of a derived buffer and of the
    absolute position embedding (`ape`). If it does not exceed `window_size`, windows have this side and do not shift.

    Raises:
        ValueError: naming the option, the value seen and the values allowed.
    """

    in_chans: int = 3
    upscale: float = 1
    upsampler: str = ""
    window_size: int = 8
    img_range: float = 1.0
    depths: tuple[int, ...] = (6, 6, 6, 6, 6, 6)
    embed_dim: int = 180
    num_heads: tuple[int, ...] = (6, 6, 6, 6, 6, 6)
    mlp_ratio: float = 2.0
    resi_connection: str = "1conv"
    img_size: int = 64
    qkv_bias: bool = True
    ape: bool = False
    patch_norm: bool = True
    drop_path_rate: float = 0.0
    use_checkpoint: bool = False
    num_feat: int = 64

    def __post_init__(self) -> None:
        # Lists come from JSON and TOML; tuples keep the configuration hashable.
        object.__setattr__(self, "depths", tuple(self.depths))
        object.__setattr__(self, "num_heads", tuple(self.num_heads))
        object.__setattr__(self, "upscale", whole(self.upscale))
        for name in ("in_chans", "upscale", "window_size", "embed_dim", "img_size", "num_feat"):
            value = getattr(self, name)
            _require(1 <= value <= MAX_SIZE, f"{name} must be from 1 to {MAX_SIZE}, got {value}")
        check_upsampler(self.upsampler, self.upscale)
        _require(
            self.resi_connection in RESI_CONNECTIONS,
            f"unknown resi_connection {self.resi_connection!r}; choose one of {', '.join(RESI_CONNECTIONS)}",
        )
        _require(
            len(self.depths) == len(self.num_heads) >= 1 and min(self.depths) >= 1 and min(self.num_heads) >= 1,
            "depths and num_heads need one positive number for each RSTB, "
            f"got depths {self.depths} and num_heads {self.num_heads}",
        )
        layers = sum(self.depths)
        _require(layers <= MAX_LAYERS, f"depths must have at most {MAX_LAYERS} layers in all, got {layers}")
        for heads in self.num_heads:
            _require(
                self.embed_dim % heads == 0,
                f"embed_dim must be divisible by num_heads, got embed_dim {self.embed_dim} and {heads} heads",
            )
        _require(
            self.resi_connection != "3conv" or self.embed_dim >= 4,
            f"resi_connection '3conv' needs an embed_dim of 4 or more, got {self.embed_dim}",
        )
        _require(self.mlp_ratio > 0, f"mlp_ratio must be positive, got {self.mlp_ratio}")
        values = layers * self.embed_dim**2 * (4 + 2 * self.mlp_ratio) + 9 * (self.embed_dim + self.num_feat) ** 2
        _require(values <= MAX_PARAMETERS, f"a network has at most {MAX_PARAMETERS} parameters, got about {values:.1e}")
        _require(self.img_range > 0, f"img_range must be positive, got {self.img_range}")
        _require(0 <= self.drop_path_rate < 1, f"drop_path_rate must be in [0, 1), got {self.drop_path_rate}")
        _require(
            self.img_size <= self.window_size or self.img_size % self.window_size == 0,
            f"img_size must be a multiple of window_size {self.window_size}, or not exceed it, got {self.img_size}",
        )

    @property
    def window(self) -> int:
        """Side of the windows that the layers use, in pixels."""
        return min(self.window_size, self.img_size)

    @property
    def shifted(self) -> bool:
        """True if every second layer shifts its windows."""
        return self.img_size > self.window_size

    @property
    def any_scale(self) -> bool:
        """True if the network makes coefficients at low resolution, which stand for an output of any size."""
        return self.upsampler == "any"

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "NetworkConfig":
        """Build from plain values; a ValueError for an unknown key."""
        known = [f.name for f in fields(cls)]
        for key in values:
            _require(key in known, f"unknown network option {key!r}; known options: {', '.join(known)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON, TOML and checkpoints."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


class WindowAttention(nn.Module):
    """Multi-head self-attention inside windows (Section 3.2).

    Attention(Q, K, V) = SoftMax(Q K^T / sqrt(d) + B) V, with a learned bias B for each offset between two tokens.
    """

    relative_position_index: Tensor

    def __init__(self, dim: int, window: int, num_heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, num_heads))
        self.register_buffer("relative_position_index", torch.empty(window**2, window**2, dtype=torch.long))
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        _draw(self.relative_position_bias_table)

    def bias(self) -> Tensor:
        """Expand B to (heads, N, N), a number for every pair of tokens."""
        n = self.relative_position_index.shape[0]
        table = self.relative_position_bias_table[self.relative_position_index.flatten()]
        return rearrange(table, "(q k) heads -> heads q k", q=n).contiguous()

    def forward(self, x: Tensor, biases: list[tuple[int, Tensor]]) -> Tensor:
        """Attend inside each window.

        Args:
            x: (B, windows * N, C) tokens, window after window.
            biases: runs of consecutive windows and the (heads, N, N) bias they share, covering all windows.
        """
        tokens = biases[0][1].shape[-1]
        q, k, v = rearrange(
            self.qkv(x), "b (n t) (three heads d) -> three b n heads t d", three=3, t=tokens, heads=self.num_heads
        )
        logits = (q * self.scale) @ k.transpose(-2, -1)
        if len(biases) == 1:
            logits = logits + biases[0][1]
        else:
            runs = logits.split([count for count, _ in biases], dim=1)
            logits = torch.cat([run + bias for run, (_, bias) in zip(runs, biases, strict=True)], dim=1)
        x = logits.softmax(dim=-1) @ v
        return self.proj(rearrange(x, "b n heads t d -> b (n t) (heads d)"))


class Mlp(nn.Module):
    """Two linear layers around a GELU (Section 3.2)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class StochasticDepth(nn.Module):
    """Drop a residual branch for random images of a training batch (Huang et al., ECCV 2016).

    If the batch is one of `count` equal parts of a larger one, the tensor `part` holds its index. Draws are made for
    the larger batch, so that equal generators drop the same branches however it is split. Rate and part are tensors,
    so that one compiled graph serves layers and parts alike.
    """

    shares: Tensor
    part: Tensor

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.count = 1
        self.register_buffer("shares", torch.empty(2), persistent=False)  # dropped and kept
        self.register_buffer("part", torch.empty(1, dtype=torch.long), persistent=False)

    def reset_derived_buffers(self) -> None:
        """Compute the buffers, which `to_empty` leaves undefined."""
        self.shares.copy_(torch.tensor([self.rate, 1 - self.rate]))
        self.part.zero_()

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        images = x.shape[0]
        draws = torch.rand(self.count * images, device=x.device).view(self.count, images)
        dropped, kept = self.shares.unbind()
        factors = (draws.index_select(0, self.part) >= dropped).to(x.dtype) / kept
        return x * factors.view(-1, 1, 1)


class SwinTransformerLayer(nn.Module):
    """The paper's STL (Section 3.2): X = MSA(LN(X)) + X, then X = MLP(LN(X)) + X."""

    masks: Tensor | None

    def __init__(self, config: NetworkConfig, num_heads: int, shifted: bool, drop_path: float) -> None:
        super().__init__()
        dim = config.embed_dim
        self.config = config
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, config.window, num_heads, config.qkv_bias)
        self.drop_path = StochasticDepth(drop_path) if drop_path > 0 else nn.Identity()
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio))
        tokens = config.window**2
        self.register_buffer("masks", torch.empty(4, tokens, tokens) if shifted else None, persistent=False)

    def forward(self, x: Tensor, windows: Windows) -> Tensor:
        """Transform (B, T, C) tokens in window order; `windows` are those that `layer_windows` has for the layer."""
        bias = self.attn.bias()
        biases = [bias] if self.masks is None else list((bias + self.masks[:, None]).unbind())
        runs = [(count, bias) for count, bias in zip(windows.counts, biases, strict=True) if count]
        if windows.order is None or windows.inverse is None:
            return self._transform(x, runs)
        x = Permute.apply(x, windows.order, windows.inverse)
        return Permute.apply(self._transform(x, runs), windows.inverse, windows.order)

    def _transform(self, x: Tensor, biases: list[tuple[int, Tensor]]) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), biases))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        # Released files hold the mask of the training size, and tools recognise SwinIR by it.
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.masks is not None:
            destination[prefix + "attn_mask"] = attn_mask(self.config.img_size, self.config.window).to(self.masks)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        # Derived values are computed, not loaded: their shapes depend on the size that the file was trained at.
        state_dict.pop(prefix + "attn_mask", None)
        state_dict[prefix + "attn.relative_position_index"] = self.attn.relative_position_index
        super()._load_from_state_dict(state_dict, prefix, *args)


class ResidualGroup(nn.Module):
    """The Swin Transformer layers of one RSTB."""

    def __init__(self, config: NetworkConfig, depth: int, num_heads: int, drop_paths: list[float]) -> None:
        super().__init__()
        self.use_checkpoint = config.use_checkpoint
        self.blocks = nn.ModuleList(
            SwinTransformerLayer(config, num_heads, config.shifted and i % 2 == 1, drop_paths[i]) for i in range(depth)
        )

    def forward(self, x: Tensor, plain: Windows, shifted: Windows) -> Tensor:
        for block in self.blocks:
            windows = plain if block.masks is None else shifted
            if self.use_checkpoint and torch.is_grad_enabled():
                x = checkpoint(block, x, windows, use_reentrant=False)
            else:
                x = block(x, windows)
        return x


class RSTB(nn.Module):
    """Residual Swin Transformer block on (B, C, H, W) (Section 3.2): F_out = H_CONV(F_L) + F_0.

    F_0 is the input, F_L the output of its L layers. With `resi_connection` "none", F_0 is not added.
    """

    def __init__(self, config: NetworkConfig, depth: int, num_heads: int, drop_paths: list[float]) -> None:
        super().__init__()
        self.window = config.window
        self.residual_group = ResidualGroup(config, depth, num_heads, drop_paths)
        self.residual = config.resi_connection != "none"
        conv = closing_conv(config)
        # Another key without the residual: with equal names and shapes, weights would pass for the default's.
        self.conv = conv if self.residual else nn.Sequential(conv)

    def forward(self, x: Tensor, plain: Windows, shifted: Windows) -> Tensor:
        tokens = to_windows(x, self.window)
        tokens = self.residual_group(tokens, plain, shifted)
        return self.close(to_image(tokens, self.window, x.shape[-2:]), x)

    def close(self, deep: Tensor, x: Tensor) -> Tensor:
        """Convolve the layers' output `deep` and add the block's input `x`, both (B, C, H, W)."""
        deep = self.conv(deep)
        return deep + x if self.residual else deep


def layer_norm_2d(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """Apply a LayerNorm to the channels of (B, C, H, W)."""
    return rearrange(norm(rearrange(x, "b c h w -> b h w c")), "b h w c -> b c h w")


def closing_conv(config: NetworkConfig) -> nn.Module:
    """Build the end of an RSTB and of the deep features: a 3x3 or 1x1 convolution, or three with a bottleneck."""
    dim = config.embed_dim
    if config.resi_connection == "1x1":
        return nn.Conv2d(dim, dim, 1)
    if config.resi_connection != "3conv":
        return nn.Conv2d(dim, dim, 3, 1, 1)
    return nn.Sequential(
        nn.Conv2d(dim, dim // 4, 3, 1, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(dim // 4, dim // 4, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(dim // 4, dim, 3, 1, 1),
    )


class PatchEmbed(nn.Module):
    """The LayerNorm before the first RSTB, under the key that released files use."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.embed_dim) if config.patch_norm else None

    def forward(self, x: Tensor) -> Tensor:
        return x if self.norm is None else layer_norm_2d(self.norm, x)


class SwinIR(nn.Module):
    """SwinIR for any of the paper's tasks: (B, in_chans, H, W) in [0, 1] to (B, in_chans, H*upscale, W*upscale).

    Sides of the output are rounded where the scale is not whole.

    Sides that are no multiple of the window are extended by reflection, and the output is cropped. It is not clamped.
    The state dict has the keys of the released weights, derived buffers included.

    Raises:
        ValueError: for input that is not (B, in_chans, H, W), or another size than `img_size` with `ape`.
    """

    mean: Tensor
    conv_coefficients: nn.Conv2d  # of networks of any scale
    phase_weights: PhaseWeights

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        dim, chans = config.embed_dim, config.in_chans
        self.register_buffer("mean", torch.empty(1, chans, 1, 1), persistent=False)

        self.conv_first = nn.Conv2d(chans, dim, 3, 1, 1)
        self.patch_embed = PatchEmbed(config)
        if config.ape:
            self.absolute_pos_embed = nn.Parameter(torch.zeros(1, config.img_size**2, dim))
            _draw(self.absolute_pos_embed)
        last = max(sum(config.depths) - 1, 1)
        rates = [config.drop_path_rate * i / last for i in range(sum(config.depths))]
        self.layers = nn.ModuleList()
        for depth, heads in zip(config.depths, config.num_heads, strict=True):
            self.layers.append(RSTB(config, depth, heads, rates[:depth]))
            rates = rates[depth:]
        self.norm = nn.LayerNorm(dim)
        self.conv_after_body = closing_conv(config)

        modules = reconstruction_modules(config.upsampler, config.upscale, dim, config.num_feat, chans)
        self.apply(_init_linear)
        for name, module in modules.items():  # which have initial weights of their own
            self.add_module(name, module)
        self.reset_derived_buffers()

    @classmethod
    def from_state(cls, config: NetworkConfig, state: Mapping[str, Tensor]) -> "SwinIR":
        """Build the network on the CPU with copies of a state dict's weights, without drawing initial ones."""
        with torch.device("meta"):
            network = cls(config)
        network.to_empty(device="cpu")
        network.reset_derived_buffers()
        network.load_state_dict(state)
        return network

    def reset_derived_buffers(self) -> None:
        """Compute the buffers that are neither learned nor loaded, which `to_empty` leaves undefined."""
        self.mean.copy_(torch.tensor(RGB_MEAN if self.config.in_chans == 3 else 0.0).view(1, -1, 1, 1))
        index, masks = relative_position_index(self.config.window), class_masks(self.config.window)
        for layer in self.modules():
            if isinstance(layer, SwinTransformerLayer):
                layer.attn.relative_position_index.copy_(index)
                if layer.masks is not None:
                    layer.masks.copy_(masks)
            elif isinstance(layer, StochasticDepth):
                layer.reset_derived_buffers()

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Restore an image; a network of any scale takes the (height, width) of the output instead of its scale."""
        restored = framed(self.config, self.mean, x, self._restore)
        if not self.config.any_scale:
            return restored
        with torch.autocast(x.device.type, enabled=False):
            return enlarge(self.phase_weights, restored, size or enlarged_size(x, self.config.upscale))

    def reconstruction(self) -> Reconstruction:
        """The last stage, made of this network's own modules."""
        return Reconstruction.of(self, self.config.upsampler)

    def _restore(self, x: Tensor) -> Tensor:
        """Map the normalised input to the normalised output."""
        shallow = self.conv_first(x)
        deep = self.conv_after_body(self._deep_features(shallow)) + shallow
        # Half precision ends here: the image itself needs more than bfloat16's eight bits.
        with torch.autocast(x.device.type, enabled=False):
            return self.reconstruction()(deep.to(x.dtype), x)

    def _deep_features(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = self.patch_embed(x)
        if self.config.ape:
            x = x + rearrange(self.absolute_pos_embed, "b (h w) c -> b c h w", h=height)
        plain, shifted = layer_windows(height, width, self.config.window, x.device, shifted=self.config.shifted)
        for layer in self.layers:
            x = layer(x, plain, shifted)
        return layer_norm_2d(self.norm, x)


def framed(config: NetworkConfig, mean: Tensor, x: Tensor, restore: Callable[[Tensor], Tensor]) -> Tensor:
    """Extend an image to whole windows, normalise it, apply `restore`, and undo both.

    With the upsampler "any", the result is made of coefficients, of which the first of each colour gets the mean back.

    Raises:
        ValueError: for input that is not (B, in_chans, H, W), or another size than `img_size` with `ape`.
    """
    if x.ndim != 4 or x.shape[1] != config.in_chans or x.numel() == 0:
        raise ValueError(f"input must be (B, {config.in_chans}, H, W), got {tuple(x.shape)}")
    height, width = x.shape[-2:]
    x = (reflect_to_multiple(x, config.window) - mean) * config.img_range
    if config.ape and x.shape[-2:] != (config.img_size, config.img_size):
        raise ValueError(
            "a network with an absolute position embedding takes only images of its training size, "
            f"{config.img_size}x{config.img_size}, got {x.shape[-2]}x{x.shape[-1]}"
        )
    x = restore(x) / config.img_range
    x = x + F.pad(mean, (0, 0, 0, 0, 0, x.shape[1] - mean.shape[1]))
    scale = int(1 if config.any_scale else config.upscale)
    return x[:, :, : height * scale, : width * scale]


def enlarge(phases: PhaseWeights, coefficients: Tensor, size: tuple[int, int]) -> Tensor:
    """Compute the (B, C, *size) image that (B, J * C, H, W) coefficients stand for."""
    rows, cols = (Axis.of(*sides) for sides in zip(coefficients.shape[-2:], size, strict=True))
    restored: Tensor = phases(coefficients, rows, cols)
    return restored


def enlarged_size(x: Tensor, scale: float) -> tuple[int, int]:
    """Return the height and width of an image enlarged by a scale."""
    return enlarged(x.shape[-2], scale), enlarged(x.shape[-1], scale)


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        _draw(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _draw(weight: Tensor) -> None:
    if weight.is_meta:  # PyTorch draws on the meta device more slowly than real values
        return
    # Here, since its import takes as long as PyTorch's own, and only training draws weights.
    from timm.layers import trunc_normal_

    trunc_normal_(weight, std=0.02)
