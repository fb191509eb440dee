"""Estimate of noise of any kind in a photograph: of cameras, film, resizing, and under JPEG.

    pixels -> crops -> NoiseEstimator -> levels for cells of 16x16 pixels -> MeasuredNoise

A small convolutional network predicts, for each cell, the standard deviation of the noise and how far the prediction
can be trusted: much in smooth parts, little in textures. It was trained on photographs with known noise, and on
textures, halftones, dithering, text and drawings without noise, by `scripts/fit_noise_estimator.py`.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from swinir.degradations.estimate_input import LUMA, merge_equal_channels

CELL = 16  # side in pixels
BUNDLED = Path(__file__).with_name("noise_estimator.safetensors")
FLOOR = 0.25  # variance added to targets before the logarithm: weaker noise than that of rounding is none
_CROP, _CROPS = 128, 8  # side of crops of large images, and their number along each side
_MEAN_AMPLITUDE = 2.0  # of filters, binary logarithm; brings them near 0
_FROM_ENDS = 8  # of luma: in cells nearer to black or white, noise is clipped
_LEAST_CELLS = 4
_DARK, _BRIGHT = 85, 170  # limits of luma
# JFIF's Y, Cb and Cr of RGB.
_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


@dataclass(frozen=True)
class MeasuredNoise:
    """Standard deviations of noise, in units of 1/255.

    Attributes:
        fine: on luma, without means of 4x4 pixels.
        coarse: of means of 4x4 pixels of luma.
        chroma: root mean square over Cb and Cr.
        shadows, highlights: on luma in dark and in bright parts; None for an image without such parts.
        error: standard deviation of the error that the network expects of the binary logarithm of `fine`.
    """

    fine: float
    coarse: float
    chroma: float
    shadows: float | None
    highlights: float | None
    error: float

    @property
    def luma(self) -> float:
        """Standard deviation on luma."""
        return float(np.hypot(self.fine, self.coarse))


class NoiseEstimator(nn.Module):
    """Levels of noise for each cell: cosines of 8x8 pixels, logarithms of their amplitudes, and convolutions.

    The cosines are fixed: learned filters lost their blindness to plain areas, and with it the sight of noise.

    Attributes:
        norms: batch normalisation after each convolution in training, nothing afterwards.
    """

    cosines: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cosines", cosines(), persistent=False)
        shapes = ((36, 32, 1), (32, 40, 2), (40, 32, 1), (32, 24, 2))
        self.convs = nn.ModuleList(nn.Conv2d(given, out, 3, stride, 1) for given, out, stride in shapes)
        self.norms = nn.ModuleList(nn.Identity() for _ in shapes)
        self.last = nn.Conv2d(24, 6, 1)

    def forward(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        """Predict levels.

        Args:
            rgb: (N, 3, H, W) from 0 to 255, sides multiples of 16.

        Returns:
            (N, 3, H/16, W/16) binary logarithms of standard deviations (luma fine, luma coarse, chroma), and natural
            logarithms of the standard deviations of their errors.
        """
        x = torch.einsum("ij,njhw->nihw", rgb.new_tensor(_YCC), rgb) - rgb.new_tensor([128.0, 0, 0]).view(1, 3, 1, 1)
        x = x.contiguous(memory_format=torch.channels_last)
        x = torch.log2(1 + F.conv2d(x, self.cosines, stride=4, padding=2).abs()) - _MEAN_AMPLITUDE
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x)).relu()
        levels, errors = self.last(x).split(3, dim=1)
        return levels, errors.clamp(-4, 3)


def cosines() -> Tensor:
    """Return basis functions of the DCT of 8x8 pixels, none of them constant: 28 of luma and 4 each of Cb and Cr."""
    index = np.arange(8)
    waves = np.cos(np.pi * (index + 0.5) * index[:, None] / 8) * np.sqrt(np.where(index, 2, 1) / 8)[:, None]
    steps = (0, 1, 2, 3, 5, 7)
    of_luma = sorted(((v, h) for v in steps for h in steps if 0 < v + h < 11), key=sum)[:28]
    of_chroma = ((0, 1), (1, 0), (2, 2), (5, 5))
    filters = np.zeros((36, 3, 8, 8), np.float32)
    chosen = [(channel, *pair) for channel, pairs in enumerate((of_luma, of_chroma, of_chroma)) for pair in pairs]
    for number, (channel, vertical, horizontal) in enumerate(chosen):
        filters[number, channel] = np.outer(waves[vertical], waves[horizontal])
    return torch.from_numpy(filters)


def noise_targets(noise: Tensor) -> Tensor:
    """Return what the network should say of (N, 3, H, W) noise in units of 1/255: (N, 3, H/16, W/16).

    The levels are those of 32x32 pixels about each cell, since 16 means of 4x4 pixels would tell little.
    """
    ycc = torch.einsum("ij,njhw->nihw", noise.new_tensor(_YCC), noise)
    coarse = F.avg_pool2d(ycc[:, :1], 4)
    fine = ycc[:, :1] - F.interpolate(coarse, scale_factor=4.0)
    chroma = (ycc[:, 1:] ** 2).mean(dim=1, keepdim=True)
    powers = ((fine**2, CELL), (coarse**2, CELL // 4), (chroma, CELL))
    pooled = [F.avg_pool2d(p, 2 * cell, cell, cell // 2, count_include_pad=False) for p, cell in powers]
    return torch.log2(torch.cat(pooled, dim=1) + FLOOR) / 2


def measure_noise(image: np.ndarray) -> MeasuredNoise:
    """Measure the noise of an (H, W, 1) or (H, W, 3) RGB uint8 image of at least 16x16 pixels.

    Of large images, 64 crops of 128x128 pixels are looked at.
    """
    image = merge_equal_channels(image)
    crops = _crops(image)
    rgb = torch.from_numpy(np.broadcast_to(crops, (*crops.shape[:3], 3)).transpose(0, 3, 1, 2).copy()).float()
    with torch.inference_mode():
        levels, errors = (x.numpy() for x in _bundled()(rgb))
    luma = (crops @ LUMA if crops.shape[3] == 3 else crops[..., 0]).astype(np.float32)
    count, height, width = luma.shape
    luma = luma.reshape(count, height // CELL, CELL, width // CELL, CELL).mean(axis=(2, 4))
    inside = (luma > _FROM_ENDS) & (luma < 255 - _FROM_ENDS)
    if inside.sum() < _LEAST_CELLS:
        inside[:] = True
    fine, coarse, chroma, error = _pool(levels, errors, inside)
    shadows, highlights = (
        float(np.hypot(*_pool(levels, errors, part)[:2])) if part.sum() >= _LEAST_CELLS else None
        for part in (inside & (luma < _DARK), inside & (luma > _BRIGHT))
    )
    return MeasuredNoise(fine, coarse, chroma, shadows, highlights, error)


def _pool(levels: np.ndarray, errors: np.ndarray, cells: np.ndarray) -> tuple[float, float, float, float]:
    """Return the mean levels, and the mean error, of the surest tenth of cells, (N, H, W) booleans.

    Noise is everywhere. In plain parts, where predictions are sure, texture cannot be taken for it.
    """
    values = np.sqrt(np.maximum(4 ** levels.swapaxes(0, 1)[:, cells] - FLOOR, 0))
    count = max(_LEAST_CELLS, values.shape[1] // 10)
    spreads = np.exp(errors[:, 0][cells])
    surest = np.argsort(spreads, kind="stable")[:count]
    fine, coarse, chroma = values[:, surest].mean(axis=1)
    return float(fine), float(coarse), float(chroma), float(spreads[surest].mean())


def _crops(image: np.ndarray) -> np.ndarray:
    """Return the image, its sides cut to multiples of 16, or crops of it: (N, H, W, C)."""
    height, width = (side // CELL * CELL for side in image.shape[:2])
    if height * width <= (_CROP * _CROPS) ** 2:
        return image[None, :height, :width]
    rows, cols = (
        sorted({start // CELL * CELL for start in np.linspace(0, max(0, side - _CROP), _CROPS).astype(int)})
        for side in (height, width)
    )
    high, wide = min(_CROP, height), min(_CROP, width)
    return np.stack([image[top : top + high, left : left + wide] for top in rows for left in cols])


def load(path: Path) -> NoiseEstimator:
    """Load weights in safetensors format."""
    network = NoiseEstimator()
    network.load_state_dict({name: values.float() for name, values in load_file(path).items()})
    return network.eval().to(memory_format=torch.channels_last)


@lru_cache(maxsize=1)
def _bundled() -> NoiseEstimator:
    return load(BUNDLED)
