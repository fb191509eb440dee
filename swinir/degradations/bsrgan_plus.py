"""The extended chain of BSRGAN's authors, with ideas of Real-ESRGAN: two rounds in a fixed order, at times shuffled.

Numbers of github.com/cszn/BSRGAN and cszn/KAIR, utils/utils_blindsr.py, `degradation_bsrgan_plus`. It is not
the one that SwinIR's recipe asks for. Its sharpening of the ground truth (`use_sharp`) is left to the caller.
"""

from dataclasses import dataclass

import numpy as np

from swinir.degradations.bsrgan import (
    BSRGANOptions,
    random_blur,
    random_gaussian,
    random_jpeg,
    random_poisson,
    random_speckle,
)
from swinir.degradations.camera import random_camera
from swinir.degradations.sampling import Range, pick
from swinir.degradations.steps import INTERPOLATIONS, CameraNoise, Resize, Size, Step, apply_steps, check_gt


@dataclass(frozen=True)
class BSRGANPlusOptions(BSRGANOptions):
    """Options of `BSRGANOptions`, as far as they apply, and those of the random resizing.

    Attributes:
        shuffle_prob: to shuffle all steps of both rounds; 0.1 in the recipes, 0.5 where KAIR's function is bare.
        resize_probs: to enlarge, reduce or keep.
        enlarge_range: factor of enlarging.
        smallest: reducing goes down to this over 4 in the first round, over the scale in the second.
    """

    jpeg_prob: float = 1.0
    camera_prob: float = 0.1
    poisson_prob: float = 0.1
    speckle_prob: float = 0.1
    shuffle_prob: float = 0.1
    resize_probs: tuple[float, float, float] = (0.2, 0.7, 0.1)
    enlarge_range: Range = (1.0, 2.0)
    smallest: float = 0.5


def bsrgan_plus(
    gt: np.ndarray, rng: np.random.Generator, *, scale: int, options: BSRGANPlusOptions = BSRGANPlusOptions()
) -> np.ndarray:
    """Degrade an image at random; arguments, result and errors as of `swinir.degradations.bsrgan.bsrgan`."""
    check_gt(gt, scale)
    return apply_steps(plan_bsrgan_plus(gt.shape[:2], rng, scale=scale, options=options), gt, rng)


def plan_bsrgan_plus(
    size: Size, rng: np.random.Generator, *, scale: int, options: BSRGANPlusOptions = BSRGANPlusOptions()
) -> list[Step]:
    """Draw the steps for a ground truth of (height, width).

    Sizes follow from the order of the two resizings; a side never falls below 4 pixels, where the published
    code can end with none at all.
    """
    factors = [_factor(rng, divisor, options) for divisor in (4, scale)]
    slots: list[list[Step]] = []
    resizings = []
    for _ in factors:
        slots.append([random_blur(rng, scale, options)])
        resizings.append(len(slots))
        slots.append([])  # filled in below
        slots.append([random_gaussian(rng, options)])
        slots.append([random_poisson(rng, options)] if rng.random() < options.poisson_prob else [])
        slots.append([random_speckle(rng, options)] if rng.random() < options.speckle_prob else [])
        slots.append([CameraNoise(random_camera(rng))] if rng.random() < options.camera_prob else [])
        slots.append([random_jpeg(rng, options)] if rng.random() < options.jpeg_prob else [])
    order = list(range(len(slots)))
    if rng.random() < options.shuffle_prob:
        order = [int(i) for i in rng.permutation(len(slots))]

    current = size
    for i in (i for i in order if i in resizings):
        factor = factors[resizings.index(i)]
        current = max(4, int(current[0] * factor)), max(4, int(current[1] * factor))
        slots[i] = [Resize(current, pick(rng, INTERPOLATIONS))]
    target = size[0] // scale, size[1] // scale
    steps = [step for i in order for step in slots[i]]
    return [*steps, Resize(target, pick(rng, INTERPOLATIONS)), random_jpeg(rng, options)]


def _factor(rng: np.random.Generator, divisor: int, options: BSRGANPlusOptions) -> float:
    limits = pick(rng, (options.enlarge_range, (options.smallest / divisor, 1.0), (1.0, 1.0)), options.resize_probs)
    return float(rng.uniform(*limits))
