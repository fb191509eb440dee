"""BSRGAN's random degradation, the training data of the paper's real-world models.

Zhang et al., "Designing a Practical Degradation Model for Deep Blind Image Super-Resolution" (ICCV 2021),
Section 3, with the numbers of the authors' code (github.com/cszn/KAIR, utils/utils_blindsr.py,
`degradation_bsrgan`). KAIR's recipe for real-world SwinIR (options/swinir/train_swinir_sr_realworld_x4_psnr.json)
asks for this chain (`degradation_type` "bsrgan"), though without the camera's noise, of which no code was
released; set `camera_prob=0` to follow that. Its `shuffle_prob` and `use_sharp` concern only the other chain,
`swinir.degradations.bsrgan_plus`.
"""

from dataclasses import dataclass

import numpy as np

from swinir.degradations.camera import random_camera
from swinir.degradations.kernels import EllipticKernel
from swinir.degradations.sampling import Range, check_options, draw_integer, pick
from swinir.degradations.steps import (
    CHANNELS,
    INTERPOLATIONS,
    Blur,
    CameraNoise,
    GaussianNoise,
    Jpeg,
    MatlabResize,
    PoissonNoise,
    Resize,
    Size,
    SpeckleNoise,
    Step,
    Subsample,
    apply_steps,
    check_gt,
)


@dataclass(frozen=True)
class BSRGANOptions:
    """Probabilities and ranges of the chain; defaults as published, for the scales 2 and 4.

    Names ending in `_prob` are probabilities, in `_probs` those of alternatives, in `_range` limits, both
    included, of a uniform draw.

    Attributes:
        half_prob: at scale 4, to halve the image first and go on as at scale 2.
        matlab_prob: to halve by MATLAB's bicubic instead of OpenCV's bilinear, bicubic or area.
        aniso_prob: of each of the two blurs, to be anisotropic.
        kernel_size_range: of the blurs, odd sizes only.
        iso_sigma: (a, b): the standard deviation is uniform up to a + b * scale.
        aniso_variance: (a, b): both variances are uniform up to a + b * scale.
        interpolate_prob: to reduce by interpolation to a random size, and not by blur and subsampling.
        reduce_range: that random size is 1 / uniform(reduce_range[0], reduce_range[1] * scale).
        subsample_sigma: (a, b): blur before subsampling has a sigma uniform from a to b * scale.
        noise_range: whole levels of Gaussian and speckle noise, in units of 1/255.
        noise_channel_probs: independent colour noise, grey noise, noise with a covariance between channels;
            the last has the largest level, spread at random over three axes.
        jpeg_prob: of the first of two compressions.
        jpeg_range: whole qualities of both.
        camera_prob: of noise of a camera's sensor (paper, Section 3.3; here `swinir.degradations.camera`).
        poisson_prob, speckle_prob: steps of the extended chain that join the shuffle; not in this chain as published.
        poisson_exponent_range: counts at white are 10 to the power of this.
        poisson_gray_prob: share of Poisson noise that is grey.
    """

    half_prob: float = 0.25
    matlab_prob: float = 0.5
    aniso_prob: float = 0.5
    kernel_size_range: Range = (7, 25)
    iso_sigma: Range = (2.0, 0.2)
    aniso_variance: Range = (4.0, 1.0)
    interpolate_prob: float = 0.75
    reduce_range: Range = (1.0, 2.0)
    subsample_sigma: Range = (0.1, 0.6)
    noise_range: Range = (2, 25)
    noise_channel_probs: tuple[float, float, float] = (0.4, 0.4, 0.2)
    jpeg_prob: float = 0.9
    jpeg_range: Range = (30, 95)
    camera_prob: float = 0.25
    poisson_prob: float = 0.0
    speckle_prob: float = 0.0
    poisson_exponent_range: Range = (2.0, 4.0)
    poisson_gray_prob: float = 0.5

    def __post_init__(self) -> None:
        check_options(self)


def bsrgan(
    gt: np.ndarray, rng: np.random.Generator, *, scale: int, options: BSRGANOptions = BSRGANOptions()
) -> np.ndarray:
    """Degrade an image at random.

    Args:
        gt: (H, W, 3) RGB float32 in [0, 1]; H and W multiples of the scale. Sharpening it first is the caller's.
        rng: the only source of randomness.
        scale: of the super-resolution; 2 and 4 are published, others follow the same formulas.
        options: probabilities and ranges; defaults as published.

    Returns:
        (H / scale, W / scale, 3) RGB float32 in [0, 1], multiples of 1/255, registered: pixel (i, j) stands for
        the block of gt from (i * scale, j * scale) on.

    Raises:
        ValueError: for an image or a scale that does not fit.
    """
    check_gt(gt, scale)
    return apply_steps(plan_bsrgan(gt.shape[:2], rng, scale=scale, options=options), gt, rng)


def plan_bsrgan(
    size: Size, rng: np.random.Generator, *, scale: int, options: BSRGANOptions = BSRGANOptions()
) -> list[Step]:
    """Draw the steps for a ground truth of (height, width)."""
    before: list[Step] = []
    if scale == 4 and rng.random() < options.half_prob:
        size, scale = (size[0] // 2, size[1] // 2), 2
        matlab = rng.random() < options.matlab_prob
        before.append(MatlabResize(size) if matlab else Resize(size, pick(rng, INTERPOLATIONS)))
    target = size[0] // scale, size[1] // scale

    slots: list[list[Step]] = [
        [random_blur(rng, scale, options)],
        [random_blur(rng, scale, options)],
        [_first_reduction(size, rng, scale, options)],
        [Resize(target, pick(rng, INTERPOLATIONS))],
        [random_gaussian(rng, options)],
        [random_jpeg(rng, options)] if rng.random() < options.jpeg_prob else [],
        [CameraNoise(random_camera(rng))] if rng.random() < options.camera_prob else [],
        [random_poisson(rng, options)] if rng.random() < options.poisson_prob else [],
        [random_speckle(rng, options)] if rng.random() < options.speckle_prob else [],
    ]
    order = [int(i) for i in rng.permutation(len(slots))]
    first, last = sorted((order.index(2), order.index(3)))
    order[first], order[last] = 2, 3  # the size is final after the second reduction
    shuffled = [step for i in order for step in slots[i]]
    return [*before, *shuffled, random_jpeg(rng, options)]


def _first_reduction(size: Size, rng: np.random.Generator, scale: int, options: BSRGANOptions) -> Step:
    if rng.random() < options.interpolate_prob:
        factor = rng.uniform(options.reduce_range[0], options.reduce_range[1] * scale)
        smaller = max(1, int(size[0] / factor)), max(1, int(size[1] / factor))
        return Resize(smaller, pick(rng, INTERPOLATIONS))
    low, per_scale = options.subsample_sigma
    return Subsample(scale, rng.uniform(low, per_scale * scale))


def random_blur(rng: np.random.Generator, scale: int, options: BSRGANOptions) -> Blur:
    """An isotropic or anisotropic Gaussian blur."""
    low, high = options.kernel_size_range
    size = 2 * draw_integer(rng, (low // 2, high // 2)) + 1
    if rng.random() < options.aniso_prob:
        base, per_scale = options.aniso_variance
        first, second = np.sqrt(rng.uniform(0, base + per_scale * scale, 2))
        return Blur(EllipticKernel(size, (float(first), float(second)), rng.uniform(0, np.pi)))
    base, per_scale = options.iso_sigma
    sigma = rng.uniform(0, base + per_scale * scale)
    return Blur(EllipticKernel(size, (sigma, sigma)))


def random_gaussian(rng: np.random.Generator, options: BSRGANOptions) -> GaussianNoise:
    """Gaussian noise: in colour, in grey, or with a covariance."""
    level = draw_integer(rng, options.noise_range)
    channels = pick(rng, CHANNELS, options.noise_channel_probs)
    if channels != "covariance":
        return GaussianNoise(channels, level)
    # Axes from a random matrix with positive entries, as published: one lies near the diagonal, grey.
    axes = np.linalg.svd(rng.random((3, 3)))[0]
    covariance = np.abs((axes.T * rng.random(3)) @ axes) * (options.noise_range[1] / 255) ** 2
    # Magnitudes of a 3 x 3 covariance are one again: its minors stay and the determinant can only grow.
    variance, axes = np.linalg.eigh(covariance)
    root = axes * np.sqrt(np.maximum(variance, 0))
    return GaussianNoise(channels, options.noise_range[1], tuple(tuple(map(float, row)) for row in root))


def random_speckle(rng: np.random.Generator, options: BSRGANOptions) -> SpeckleNoise:
    """Noise drawn like the Gaussian, but proportional to the image."""
    drawn = random_gaussian(rng, options)
    return SpeckleNoise(drawn.channels, drawn.level, drawn.root)


def random_poisson(rng: np.random.Generator, options: BSRGANOptions) -> PoissonNoise:
    """Poisson noise with a random number of counts."""
    peak = 10 ** rng.uniform(*options.poisson_exponent_range)
    return PoissonNoise(gray=bool(rng.random() < options.poisson_gray_prob), peak=peak)


def random_jpeg(rng: np.random.Generator, options: BSRGANOptions) -> Jpeg:
    """Compression with a random quality."""
    return Jpeg(draw_integer(rng, options.jpeg_range))
