"""High-quality image reconstruction, the last stage of SwinIR (Section 3.1), in its tasks' four forms and one of ours.

| upsampler             | task                              | steps                                                    |
|-----------------------|-----------------------------------|----------------------------------------------------------|
| "pixelshuffle"        | classical super-resolution        | convolution, sub-pixel convolutions, convolution         |
| "pixelshuffledirect"  | lightweight super-resolution      | one sub-pixel convolution                                |
| "nearest+conv"        | real-world super-resolution       | nearest-neighbour enlargement and convolutions by turns  |
| ""                    | denoising, JPEG artifact removal  | one convolution, whose output is added to the input      |
| "any"                 | super-resolution by a real scale  | one convolution, before `swinir.models.phases`           |
"""

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from swinir.models.phases import COEFFICIENTS, PhaseWeights


def check_upsampler(upsampler: str, upscale: float) -> None:
    """Raise a ValueError for an unknown form, and for an enlargement that the form does not have."""
    forms = {
        "pixelshuffle": (upscale == 3 or upscale in (2**n for n in range(1, 32)), "3 or a power of two from 2"),
        "pixelshuffledirect": (upscale >= 2 and isinstance(upscale, int), "2 or more, a whole number"),
        "nearest+conv": (upscale in (2, 4), "2 or 4"),
        "": (upscale == 1, "1"),
        "any": (upscale >= 1, "1 or more"),
    }
    if upsampler not in forms:
        raise ValueError(f"unknown upsampler {upsampler!r}; choose one of {', '.join(map(repr, forms))}")
    allowed, advice = forms[upsampler]
    if not allowed:
        raise ValueError(f"upsampler {upsampler!r} needs an upscale of {advice}, got {upscale}")


def shuffle_steps(upscale: int) -> list[int]:
    """Factors of the successive pixel shuffles that make up an enlargement."""
    return [3] if upscale == 3 else [2] * (upscale.bit_length() - 1)


def reconstruction_modules(upsampler: str, upscale: float, dim: int, feat: int, chans: int) -> dict[str, nn.Module]:
    """The modules with weights, by the names that they have in released files.

    Args:
        dim, feat, chans: channels of the deep features, of the features while enlarged, and of the image.
    """
    if upsampler == "":
        return {"conv_last": _conv(dim, chans)}
    if upsampler == "any":
        coefficients = _conv(dim, COEFFICIENTS * chans)
        for parameter in coefficients.parameters():  # only the first of each colour, or their sum starts as loud noise
            nn.init.zeros_(parameter[chans:])
        return {"conv_coefficients": coefficients, "phase_weights": PhaseWeights()}
    assert isinstance(upscale, int)
    if upsampler == "pixelshuffledirect":
        return {"upsample": nn.Sequential(_conv(dim, upscale**2 * chans), nn.PixelShuffle(upscale))}
    modules: dict[str, nn.Module] = {"conv_before_upsample": nn.Sequential(_conv(dim, feat), nn.LeakyReLU())}
    if upsampler == "pixelshuffle":
        steps: list[nn.Module] = []
        for factor in shuffle_steps(upscale):
            steps += [_conv(feat, factor**2 * feat), nn.PixelShuffle(factor)]
        modules["upsample"] = nn.Sequential(*steps)
    else:
        for i, _ in enumerate(shuffle_steps(upscale), start=1):
            modules[f"conv_up{i}"] = _conv(feat, feat)
        modules["conv_hr"] = _conv(feat, feat)
    return modules | {"conv_last": _conv(feat, chans)}


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, 1, 1)


class Reconstruction(NamedTuple):
    """The paper's H_REC: (B, dim, H, W) features to the image, both normalised.

    It is no module and owns no weights: its steps are modules of a network, or copies of them.

    Attributes:
        steps: applied one after another.
        residual: True where the input is added to the last step's output, so that the network learns the difference.
    """

    steps: tuple[nn.Module, ...]
    residual: bool

    @classmethod
    def of(cls, network: nn.Module, upsampler: str) -> "Reconstruction":
        """The reconstruction of a network that has the modules of `reconstruction_modules` as attributes."""
        modules = dict(network.named_children())
        steps: list[nn.Module] = []
        names = "conv_before_upsample", "upsample", "conv_up1", "conv_up2", "conv_hr", "conv_last", "conv_coefficients"
        for name in names:
            if name in modules:
                enlarging = [nn.Upsample(scale_factor=2, mode="nearest")] if name.startswith("conv_up") else []
                activation = [nn.LeakyReLU(0.2)] if name.startswith(("conv_up", "conv_hr")) else []
                steps += [*enlarging, modules[name], *activation]
        return cls(tuple(steps), residual=upsampler == "")

    def __call__(self, features: Tensor, x: Tensor) -> Tensor:
        """Features and the network's normalised input to its normalised output."""
        for step in self.steps:
            features = step(features)
        return x + features if self.residual else features


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
