"""Real-ESRGAN's second-order degradation: blur, resizing, noise and JPEG, twice, with ringing at the end.

Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data" (ICCVW 2021),
Section 3, with the numbers of the authors' code (github.com/xinntao/Real-ESRGAN: options/train_realesrgan_x4plus.yml,
realesrgan/data/realesrgan_dataset.py, realesrgan/models/realesrgan_model.py). The authors sharpen the ground
truth first (unsharp masking); that is the caller's. Deviations: OpenCV resizes, so that both sizes alone decide
the registration, libjpeg compresses with whole qualities where the authors approximate it with real ones, and
values are clipped to [0, 1] after every step, theirs first by the noise.
"""

import math
from dataclasses import dataclass

import numpy as np

from swinir.degradations.kernels import EllipticKernel, Kernel, Profile, SincKernel
from swinir.degradations.sampling import Range, check_options, draw_integer, pick
from swinir.degradations.steps import (
    INTERPOLATIONS,
    Blur,
    GaussianNoise,
    Jpeg,
    PoissonNoise,
    Resize,
    Round,
    Size,
    Step,
    apply_steps,
    check_gt,
)

# (profile, isotropic), in the order of `RoundOptions.kernel_probs`
KERNELS: tuple[tuple[Profile, bool], ...] = (
    ("gaussian", True),
    ("gaussian", False),
    ("generalized", True),
    ("generalized", False),
    ("plateau", True),
    ("plateau", False),
)


@dataclass(frozen=True)
class RoundOptions:
    """One round; defaults are the first's. Names as in `swinir.degradations.bsrgan.BSRGANOptions`.

    Attributes:
        blur_prob: to blur at all.
        sinc_prob: of a blur, to be a sinc filter and none of the six elliptic kernels.
        kernel_probs: of the rows of `KERNELS`.
        sigma_range: in pixels.
        generalized_beta_range, plateau_beta_range: shape parameter; half of the draws are below 1 and half
            above, so that half of the plateaus have 1 itself.
        resize_probs: to enlarge, reduce or keep.
        resize_range: smallest and largest factor; of the ground truth in the first round, of the final size in
            the second.
        gaussian_prob: of Gaussian noise; otherwise Poisson.
        noise_range: standard deviation of Gaussian noise, in units of 1/255.
        poisson_range: factor on Poisson noise.
        gray_prob: of either noise to be the same in all channels.
        jpeg_range: whole qualities.
    """

    blur_prob: float = 1.0
    sinc_prob: float = 0.1
    kernel_probs: tuple[float, ...] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    sigma_range: Range = (0.2, 3.0)
    generalized_beta_range: Range = (0.5, 4.0)
    plateau_beta_range: Range = (1.0, 2.0)
    resize_probs: tuple[float, float, float] = (0.2, 0.7, 0.1)
    resize_range: Range = (0.15, 1.5)
    gaussian_prob: float = 0.5
    noise_range: Range = (1, 30)
    poisson_range: Range = (0.05, 3.0)
    gray_prob: float = 0.4
    jpeg_range: Range = (30, 95)

    def __post_init__(self) -> None:
        check_options(self)
        if len(self.kernel_probs) != len(KERNELS):
            raise ValueError(f"kernel_probs must have {len(KERNELS)} entries, got {len(self.kernel_probs)}")


SECOND_ROUND = RoundOptions(
    blur_prob=0.8,
    sigma_range=(0.2, 1.5),
    resize_probs=(0.3, 0.4, 0.3),
    resize_range=(0.3, 1.2),
    noise_range=(1, 25),
    poisson_range=(0.05, 2.5),
)


@dataclass(frozen=True)
class RealESRGANOptions:
    """Probabilities and ranges of the chain; defaults as published for scale 4.

    Attributes:
        first, second: the two rounds.
        kernel_size_range: of all kernels, odd sizes only.
        sinc_cutoff_range: of the last sinc filter and of small ones (below 13), in shares of pi.
        large_sinc_cutoff_range: of sinc filters from 13 on within the rounds.
        final_sinc_prob: of the last sinc filter.
        jpeg_last_prob: to end with the second compression, and not with resizing and the sinc filter.
    """

    first: RoundOptions = RoundOptions()
    second: RoundOptions = SECOND_ROUND
    kernel_size_range: Range = (7, 21)
    sinc_cutoff_range: Range = (1 / 3, 1.0)
    large_sinc_cutoff_range: Range = (1 / 5, 1.0)
    final_sinc_prob: float = 0.8
    jpeg_last_prob: float = 0.5

    def __post_init__(self) -> None:
        check_options(self)


def realesrgan(
    gt: np.ndarray, rng: np.random.Generator, *, scale: int, options: RealESRGANOptions = RealESRGANOptions()
) -> np.ndarray:
    """Degrade an image at random; arguments, result and errors as of `swinir.degradations.bsrgan.bsrgan`."""
    check_gt(gt, scale)
    return apply_steps(plan_realesrgan(gt.shape[:2], rng, scale=scale, options=options), gt, rng)


def plan_realesrgan(
    size: Size, rng: np.random.Generator, *, scale: int, options: RealESRGANOptions = RealESRGANOptions()
) -> list[Step]:
    """Draw the steps for a ground truth of (height, width)."""
    target = size[0] // scale, size[1] // scale
    steps = [*_round(size, rng, options.first, options), _jpeg(rng, options.first)]
    steps += _round(target, rng, options.second, options)

    last: list[Step] = [_resize(target, 1.0, rng)]
    if rng.random() < options.final_sinc_prob:
        kernel_size = _kernel_size(rng, options)
        last.append(Blur(SincKernel(kernel_size, math.pi * rng.uniform(*options.sinc_cutoff_range))))
    if rng.random() < options.jpeg_last_prob:
        return [*steps, *last, _jpeg(rng, options.second)]
    return [*steps, _jpeg(rng, options.second), *last, Round()]


def _round(size: Size, rng: np.random.Generator, round_: RoundOptions, options: RealESRGANOptions) -> list[Step]:
    """Blur, resizing relative to a size, and noise."""
    blurs = [Blur(_kernel(rng, round_, options))] if rng.random() < round_.blur_prob else []
    low, high = round_.resize_range
    factor = rng.uniform(*pick(rng, ((1.0, high), (low, 1.0), (1.0, 1.0)), round_.resize_probs))
    return [*blurs, _resize(size, factor, rng), _noise(rng, round_)]


def _kernel_size(rng: np.random.Generator, options: RealESRGANOptions) -> int:
    low, high = options.kernel_size_range
    return 2 * draw_integer(rng, (low // 2, high // 2)) + 1


def _kernel(rng: np.random.Generator, round_: RoundOptions, options: RealESRGANOptions) -> Kernel:
    size = _kernel_size(rng, options)
    if rng.random() < round_.sinc_prob:
        limits = options.sinc_cutoff_range if size < 13 else options.large_sinc_cutoff_range
        return SincKernel(size, math.pi * rng.uniform(*limits))
    profile, isotropic = pick(rng, KERNELS, round_.kernel_probs)
    first = rng.uniform(*round_.sigma_range)
    second = first if isotropic else rng.uniform(*round_.sigma_range)
    theta = 0.0 if isotropic else rng.uniform(-math.pi, math.pi)
    beta = 1.0
    if profile != "gaussian":
        low, high = round_.plateau_beta_range if profile == "plateau" else round_.generalized_beta_range
        beta = rng.uniform(low, 1) if rng.random() < 0.5 else rng.uniform(1, high)
    return EllipticKernel(size, (first, second), theta, profile, beta)


def _resize(size: Size, factor: float, rng: np.random.Generator) -> Resize:
    return Resize((max(1, int(size[0] * factor)), max(1, int(size[1] * factor))), pick(rng, INTERPOLATIONS))


def _noise(rng: np.random.Generator, round_: RoundOptions) -> Step:
    gray = bool(rng.random() < round_.gray_prob)
    if rng.random() < round_.gaussian_prob:
        return GaussianNoise("gray" if gray else "color", rng.uniform(*round_.noise_range))
    return PoissonNoise(gray, strength=rng.uniform(*round_.poisson_range))


def _jpeg(rng: np.random.Generator, round_: RoundOptions) -> Jpeg:
    return Jpeg(draw_integer(rng, round_.jpeg_range))
