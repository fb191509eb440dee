"""Blur kernels of the practical degradation models, and filtering with them.

A kernel is a small frozen description; `weights` makes the array. Images are filtered with mirrored borders
(without repeating the edge), so that a blur never darkens them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
from scipy.special import j1

Profile = Literal["gaussian", "generalized", "plateau"]

_NEGLIGIBLE = 1e-3  # of a kernel's weight may be cut off at its rim: a quarter of a grey level at most
_SMALLEST_SIGMA = 1e-3  # pixels; a delta on any grid

# Of the squared Mahalanobis distance and the shape parameter, not normalised (Liu et al., 2020, for the last two).
_PROFILES: dict[Profile, Callable[[np.ndarray, float], np.ndarray]] = {
    "gaussian": lambda distance, _: np.exp(-distance / 2),
    "generalized": lambda distance, beta: np.exp(-(distance**beta) / 2),
    "plateau": lambda distance, beta: 1 / (1 + distance**beta),
}


@dataclass(frozen=True)
class EllipticKernel:
    """A kernel with elliptic contours, sampled at pixel centres.

    Attributes:
        size: side in pixels, odd.
        sigma: standard deviations along the ellipse's own axes in pixels; of the Gaussian, for other profiles
            the two half axes of the contour at distance 1.
        theta: angle from the x axis (right) towards the y axis (down) to the first axis, in radians.
        profile: fall of the weights with distance.
        beta: shape of the two profiles that are not Gaussian; 1 makes `generalized` a Gaussian.
    """

    size: int
    sigma: tuple[float, float]
    theta: float = 0.0
    profile: Profile = "gaussian"
    beta: float = 1.0

    def __post_init__(self) -> None:
        _check_size(self.size)
        if self.profile not in _PROFILES:
            raise ValueError(f"profile must be one of {', '.join(_PROFILES)}, got {self.profile!r}")

    @property
    def covariance(self) -> np.ndarray:
        """(2, 2), of the continuous Gaussian in pixels squared; x before y."""
        axis = np.array([[math.cos(self.theta), -math.sin(self.theta)], [math.sin(self.theta), math.cos(self.theta)]])
        variance = np.square(np.maximum(self.sigma, _SMALLEST_SIGMA))
        return (axis * variance) @ axis.T

    @property
    def separable(self) -> bool:
        """True when the weights are the product of a row and a column."""
        return self.profile == "gaussian" and self.sigma[0] == self.sigma[1]

    def weights(self) -> np.ndarray:
        """(size, size) float64, row y and column x, that sum to 1."""
        xx, xy, yy = _squares(self.size)
        (a, b), (_, c) = np.linalg.inv(self.covariance)
        kernel = _PROFILES[self.profile](a * xx + 2 * b * xy + c * yy, self.beta)
        return kernel / kernel.sum()


@dataclass(frozen=True)
class SincKernel:
    """The ideal circular low-pass filter, cut to a square; it rings (Wang et al., Real-ESRGAN, 2021, Eq. 6).

    Attributes:
        size: side in pixels, odd.
        cutoff: largest frequency that passes, in radians per pixel; pi is the grid's own limit.
    """

    size: int
    cutoff: float

    separable = False

    def __post_init__(self) -> None:
        _check_size(self.size)
        if not 0 < self.cutoff <= math.pi:
            raise ValueError(f"cutoff must be above 0 and at most pi, got {self.cutoff}")

    def weights(self) -> np.ndarray:
        """(size, size) float64 that sum to 1; some are negative."""
        xx, _, yy = _squares(self.size)
        half = self.size // 2
        radius = np.sqrt((xx + yy)[half:, half:])  # one quadrant serves for all four
        quadrant = np.full_like(radius, self.cutoff / 2)  # the limit of J1(c r) / r at r = 0
        away = radius > 0
        quadrant[away] = j1(self.cutoff * radius[away]) / radius[away]
        lower = np.concatenate([quadrant[:, :0:-1], quadrant], axis=1)
        kernel = np.concatenate([lower[:0:-1], lower])
        return kernel / kernel.sum()


Kernel = EllipticKernel | SincKernel


def gaussian_row(size: int, sigma: float, *, shift: float = 0.0) -> np.ndarray:
    """(size,) float64 Gaussian weights that sum to 1, centred `shift` pixels right of the middle one."""
    _check_size(size)
    distance = (np.arange(size) - size // 2 - shift) ** 2
    distance -= distance.min()  # a narrow Gaussian between two pixels must not vanish
    row = np.exp(-distance / (2 * max(sigma, _SMALLEST_SIGMA) ** 2))
    return row / row.sum()


def blur(image: np.ndarray, kernel: Kernel) -> np.ndarray:
    """Filter an (H, W, C) float32 image of any size; float32, not clipped."""
    if kernel.separable:
        assert isinstance(kernel, EllipticKernel)
        row = gaussian_row(kernel.size, kernel.sigma[0])
        return cv2.sepFilter2D(image, -1, row, row, borderType=cv2.BORDER_REFLECT_101)
    # Kernels are symmetric about their middle, so OpenCV's correlation is a convolution.
    return cv2.filter2D(image, -1, _without_rim(kernel.weights()), borderType=cv2.BORDER_REFLECT_101)


def _check_size(size: int) -> None:
    if size < 1 or size % 2 == 0:
        raise ValueError(f"a kernel's size must be odd and positive, got {size}")


@lru_cache(maxsize=64)
def _squares(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x * x, x * y and y * y of every pixel of a square, from its middle."""
    axis = np.arange(size) - size // 2
    x, y = np.meshgrid(axis.astype(np.float64), axis.astype(np.float64))
    arrays = x * x, x * y, y * y
    for array in arrays:
        array.flags.writeable = False
    return arrays


def _without_rim(kernel: np.ndarray) -> np.ndarray:
    """Cut off rings of negligible weight: OpenCV is several times faster below 12 x 12."""
    middle = kernel.shape[0] // 2
    xx, _, yy = _squares(kernel.shape[0])
    ring = np.sqrt(np.maximum(xx, yy)).astype(int)
    weight = np.bincount(ring.ravel(), np.abs(kernel).ravel())
    outside = weight.sum() - np.cumsum(weight)
    radius = int(np.argmax(outside <= _NEGLIGIBLE * weight.sum()))
    inner = kernel[middle - radius : middle + radius + 1, middle - radius : middle + radius + 1]
    return inner / inner.sum()
