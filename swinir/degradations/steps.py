"""The steps that random degradation chains are made of.

A chain is planned first, as a list of steps with all their parameters, and applied afterwards. A step takes
an (H, W, 3) RGB float32 image in [0, 1] and gives another, of its own size; it draws from the generator only
the noise itself. Sizes are (height, width). No step shifts the image: pixel i of n covers the same part of
the scene, from i / n to (i + 1) / n of its side, whatever n is.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import cv2
import numpy as np

from swinir.degradations.camera import Camera, camera_noise
from swinir.degradations.jpeg import Subsampling, jpeg
from swinir.degradations.kernels import Kernel, SincKernel, blur, gaussian_row
from swinir.degradations.resize import imresize

Size = tuple[int, int]
Interpolation = Literal["bilinear", "bicubic", "area"]
Channels = Literal["color", "gray", "covariance"]
Matrix = tuple[tuple[float, ...], ...]

# OpenCV's: bilinear and bicubic do not widen their kernels when shrinking, so that they alias.
_INTERPOLATION: dict[Interpolation, int] = {
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
}
INTERPOLATIONS: tuple[Interpolation, ...] = tuple(_INTERPOLATION)
CHANNELS: tuple[Channels, ...] = get_args(Channels)
_LUMA = np.array([[0.299, 0.587, 0.114]])


class Step(Protocol):
    """One degradation with its parameters."""

    def apply(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Degrade an image; the one given stays as it was."""
        ...


def apply_steps(steps: Iterable[Step], image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Apply the steps of a plan, one after the other."""
    for step in steps:
        image = step.apply(image, rng)
    return image


def check_gt(gt: np.ndarray, scale: int) -> Size:
    """Size of the low-quality partner of an (H, W, 3) float32 image whose sides are multiples of the scale.

    Raises:
        ValueError: for another shape or dtype, or sides that the scale does not divide.
    """
    if gt.ndim != 3 or gt.shape[2] != 3 or gt.dtype != np.float32 or gt.size == 0:
        raise ValueError(f"gt must be an (H, W, 3) float32 image, got {gt.dtype} {gt.shape}")
    if scale < 1 or gt.shape[0] % scale or gt.shape[1] % scale:
        raise ValueError(
            f"gt must have sides that are multiples of the scale {scale}, got {gt.shape[1]}x{gt.shape[0]}; crop it"
        )
    return gt.shape[0] // scale, gt.shape[1] // scale


def to_bytes(image: np.ndarray) -> np.ndarray:
    """[0, 1] float32 to rounded uint8."""
    return np.rint(image * np.float32(255)).astype(np.uint8)


def to_floats(image: np.ndarray) -> np.ndarray:
    """uint8 to float32 multiples of 1/255."""
    return image.astype(np.float32) / np.float32(255)


def resample(image: np.ndarray, size: Size, interpolation: Interpolation) -> np.ndarray:
    """Resample an (H, W, C) array of any range by OpenCV."""
    return cv2.resize(image, (size[1], size[0]), interpolation=_INTERPOLATION[interpolation])


def luma(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) RGB float32 to (H, W, 1): full-range luma (ITU-R BT.601)."""
    return cv2.transform(image, _LUMA)[..., None]


def _clipped(image: np.ndarray) -> np.ndarray:
    return np.clip(image, 0, 1, out=image)


@dataclass(frozen=True)
class Blur:
    """Filtering with a kernel."""

    kernel: Kernel

    def apply(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        blurred = blur(image, self.kernel)
        return _clipped(blurred) if isinstance(self.kernel, SincKernel) else blurred


@dataclass(frozen=True)
class Resize:
    """Resampling to a size, larger or smaller, by OpenCV."""

    size: Size
    interpolation: Interpolation

    def apply(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if image.shape[:2] == self.size:
            return image
        return _clipped(resample(image, self.size, self.interpolation))


@dataclass(frozen=True)
class MatlabResize:
    """Resampling to a size by MATLAB's antialiased bicubic."""

    size: Size

    def apply(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return _clipped(imresize(image, size=self.size))


@dataclass(frozen=True)
class Subsample:
    """Isotropic Gaussian blur, then every `scale`-th pixel.

    The first pixel of every `scale` is kept, whose centre lies (scale - 1) / 2 pixels up and left of that of
    the block it stands for. The kernel is shifted by as much, so that the result is registered.
    """

    scale: int
    sigma: float
    kernel_size: int = 25

    def apply(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        row = gaussian_row(self.kernel_size, self.sigma, shift=(self.scale - 1) / 2)
        blurred = cv2.sepFilter2D(image, -1, row, row, borderType=cv2.BORDER_REFLECT_101)
        return np.ascontiguousarray(blurred[:: self.scale, :: self.scale])


@dataclass(frozen=True)
class GaussianNoise:
    """Additive noise.

    Attributes:
        channels: independent in each channel, the same in all, or with a covariance between them.
        level: standard deviation in units of 1/255; that of `covariance` is in `root` alone.
        root: (3, 3) square root of the channels' covariance, for images in [0, 1].
    """

    channels: Channels
    level: float
    root: Matrix = ()

    def noise(self, size: Size, rng: np.random.Generator) -> np.ndarray:
        """(H, W, 3), or (H, W, 1) for all channels."""
        values = rng.standard_normal((*size, 1 if self.channels == "gray" else 3), dtype=np.float32)
        if self.channels == "covariance":
            return cv2.transform(values, np.array(self.root))
        values *= np.float32(self.level / 255)
        return values

    def apply(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return _clipped(image + self.noise(image.shape[:2], rng))


@dataclass(frozen=True)
class SpeckleNoise(GaussianNoise):
    """Noise proportional to the image."""

    def apply(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return _clipped(image + image * self.noise(image.shape[:2], rng))


def poisson_counts(mean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Poisson draws for an array of float32 means, as float32; exact below 20.

    Above, a normal variable with the skewness corrected (Cornish and Fisher) and rounded: mean, variance and
    skewness agree to 1 %, in a quarter of the time.
    """
    normal = rng.standard_normal(mean.shape, dtype=np.float32)
    counts = np.rint(mean + np.sqrt(mean) * normal + (normal * normal - 1) / 6)
    few = mean < 20
    counts[few] = rng.poisson(mean[few])
    return counts


@dataclass(frozen=True)
class PoissonNoise:
    """Noise of counted light.

    Attributes:
        gray: True adds the noise of the image's luma to all channels, False adds independent noise to each.
        peak: counts at white; None for the power of two at or above the number of grey levels that occur.
        strength: factor on the noise.
    """

    gray: bool
    peak: float | None = None
    strength: float = 1.0

    def apply(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        levels = to_bytes(luma(image) if self.gray else image)
        peak = self.peak or 2.0 ** math.ceil(math.log2(np.count_nonzero(np.bincount(levels.ravel()))))
        signal = to_floats(levels)
        noise = poisson_counts(signal * np.float32(peak), rng) / np.float32(peak) - signal
        noise *= np.float32(self.strength)
        return _clipped(image + noise.reshape(*image.shape[:2], -1))


@dataclass(frozen=True)
class Jpeg:
    """Compression; also rounds to multiples of 1/255.

    Attributes:
        quality: 0 to 100.
        subsampling: of the chroma planes.
        shift: (rows, columns) of a block, less than 16 each, that lie outside the image, as in one that was cropped
            afterwards. An image with a shift is continued by its mirror image to whole blocks.
    """

    quality: int
    subsampling: Subsampling = "4:2:0"
    shift: Size = (0, 0)

    def apply(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return to_floats(self.compress(to_bytes(image)))

    def compress(self, image: np.ndarray) -> np.ndarray:
        """Compress an (H, W, 1) or (H, W, 3) uint8 image; same shape and dtype."""
        if self.shift == (0, 0):
            return jpeg(image, self.quality, self.subsampling)
        (top, left), (height, width) = self.shift, image.shape[:2]
        bottom, right = -(top + height) % 16, -(left + width) % 16
        larger = cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_REFLECT)
        larger = larger.reshape(*larger.shape[:2], image.shape[2])  # OpenCV drops the axis of one channel
        return jpeg(larger, self.quality, self.subsampling)[top : top + height, left : left + width]


@dataclass(frozen=True)
class Round:
    """Rounding to multiples of 1/255."""

    def apply(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return to_floats(to_bytes(image))


@dataclass(frozen=True)
class CameraNoise:
    """Noise of a camera's sensor after its processing."""

    camera: Camera

    def apply(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return camera_noise(image, self.camera, rng)
