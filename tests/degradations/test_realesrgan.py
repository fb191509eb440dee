"""Real-ESRGAN's chain: order of steps, frequencies and ranges as published. The contract is in test_bsrgan.py."""

import math
from collections import Counter

import numpy as np
import pytest

from swinir.degradations.kernels import EllipticKernel, SincKernel
from swinir.degradations.realesrgan import KERNELS, RealESRGANOptions, RoundOptions, plan_realesrgan
from swinir.degradations.steps import INTERPOLATIONS, Blur, GaussianNoise, Jpeg, PoissonNoise, Resize, Round

DRAWS = 3000


def of(steps, kind):
    return [step for step in steps if type(step) is kind]


def close(count, probability, draws):
    """True when a count is within four and a half standard deviations of its binomial's mean."""
    return abs(count - draws * probability) <= 4.5 * (draws * probability * (1 - probability)) ** 0.5


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(0)
    return [plan_realesrgan((256, 256), rng, scale=4) for _ in range(DRAWS)]


def rounds(steps):
    """The steps of the first and second round, and what follows, each from the blur to the noise."""
    noises = [i for i, step in enumerate(steps) if isinstance(step, GaussianNoise | PoissonNoise)]
    first, second = noises
    assert isinstance(steps[first + 1], Jpeg)
    return steps[: first + 1], steps[first + 2 : second + 1], steps[second + 1 :]


def test_each_round_is_blur_resize_noise_and_jpeg(drawn):
    for steps in drawn:
        first, second, last = rounds(steps)
        assert list(map(type, first[:2])) == [Blur, Resize]
        assert list(map(type, second[:-1])) in ([Blur, Resize], [Resize])
        order = [type(step) for step in last if not isinstance(step, Blur)]
        assert order in ([Resize, Jpeg], [Jpeg, Resize, Round])
        assert of(last, Resize)[0].size == (64, 64)
        for blur in of(last, Blur):
            assert last.index(blur) == last.index(of(last, Resize)[0]) + 1


def test_optional_steps_occur_as_often_as_published(drawn):
    parts = [rounds(steps) for steps in drawn]
    assert close(sum(bool(of(second, Blur)) for _, second, _ in parts), 0.8, DRAWS)
    assert close(sum(bool(of(last, Blur)) for *_, last in parts), 0.8, DRAWS)
    assert close(sum(type(last[-1]) is Jpeg for *_, last in parts), 0.5, DRAWS)


@pytest.mark.parametrize("number", [0, 1])
def test_kernels_occur_as_often_as_published(drawn, number):
    kernels = [step.kernel for steps in drawn for step in of(rounds(steps)[number], Blur)]
    counts = Counter(
        (k.profile, k.sigma[0] == k.sigma[1]) if isinstance(k, EllipticKernel) else "sinc" for k in kernels
    )
    assert close(counts["sinc"], 0.1, len(kernels))
    for row, probability in zip(KERNELS, (0.45, 0.25, 0.12, 0.03, 0.12, 0.03), strict=True):
        assert close(counts[row], 0.9 * probability, len(kernels))
    assert {kernel.size for kernel in kernels} == set(range(7, 22, 2))
    sigmas = [s for k in kernels if isinstance(k, EllipticKernel) for s in k.sigma]
    assert 0.2 <= min(sigmas) < 0.21
    assert (3.0, 1.5)[number] * 0.99 < max(sigmas) <= (3.0, 1.5)[number]


def test_shape_parameters_are_halved_at_one(drawn):
    kernels = [step.kernel for steps in drawn for step in of(steps, Blur) if isinstance(step.kernel, EllipticKernel)]
    plateaus = np.array([k.beta for k in kernels if k.profile == "plateau"])
    assert close((plateaus == 1).sum(), 0.5, len(plateaus))
    assert plateaus.max() <= 2
    generalized = np.array([k.beta for k in kernels if k.profile == "generalized"])
    assert close((generalized < 1).sum(), 0.5, len(generalized))
    assert generalized.min() >= 0.5
    assert generalized.max() <= 4


def test_large_sinc_filters_may_cut_lower_within_the_rounds(drawn):
    in_rounds = [s.kernel for steps in drawn for part in rounds(steps)[:2] for s in of(part, Blur)]
    small = [k.cutoff for k in in_rounds if isinstance(k, SincKernel) and k.size < 13]
    large = [k.cutoff for k in in_rounds if isinstance(k, SincKernel) and k.size >= 13]
    last = [s.kernel.cutoff for steps in drawn for s in of(rounds(steps)[2], Blur)]
    assert min(small) >= math.pi / 3
    assert min(last) >= math.pi / 3
    assert math.pi / 5 <= min(large) < math.pi / 3
    sincs = [s.kernel for steps in drawn for s in of(steps, Blur) if isinstance(s.kernel, SincKernel)]
    assert min(k.cutoff for k in sincs if k.size == 13) < math.pi / 3
    assert max(*small, *large, *last) <= math.pi


@pytest.mark.parametrize(
    ("number", "side", "probs", "limits"),
    [(0, 256, (0.2, 0.7, 0.1), (0.15, 1.5)), (1, 64, (0.3, 0.4, 0.3), (0.3, 1.2))],
)
def test_resizing_goes_up_down_and_nowhere_as_often_as_published(drawn, number, side, probs, limits):
    resizes = [of(rounds(steps)[number], Resize)[0] for steps in drawn]
    factors = np.array([step.size[0] / side for step in resizes])
    slack = 1 / side  # enlarging by less than a pixel keeps the size
    assert abs((factors > 1).mean() - probs[0]) < 0.04 + slack
    assert abs((factors < 1).mean() - probs[1]) < 0.04 + slack
    assert factors.min() >= limits[0] - slack
    assert factors.max() <= limits[1]
    counts = Counter(step.interpolation for step in resizes)
    for name in INTERPOLATIONS:
        assert close(counts[name], 1 / 3, DRAWS)


@pytest.mark.parametrize(("number", "level", "strength"), [(0, (1, 30), (0.05, 3.0)), (1, (1, 25), (0.05, 2.5))])
def test_noise_is_half_gaussian_half_poisson_and_partly_grey(drawn, number, level, strength):
    noises = [rounds(steps)[number][-1] for steps in drawn]
    gaussian = [noise for noise in noises if isinstance(noise, GaussianNoise)]
    poisson = [noise for noise in noises if isinstance(noise, PoissonNoise)]
    assert close(len(gaussian), 0.5, DRAWS)
    grey = sum(noise.channels == "gray" for noise in gaussian) + sum(noise.gray for noise in poisson)
    assert close(grey, 0.4, DRAWS)
    for values, (low, high) in (([n.level for n in gaussian], level), ([n.strength for n in poisson], strength)):
        assert low <= min(values) < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < max(values) <= high


def test_jpeg_qualities_fill_the_published_range(drawn):
    assert {step.quality for steps in drawn for step in of(steps, Jpeg)} == set(range(30, 96))


def test_each_round_compresses_by_its_own_range():
    options = RealESRGANOptions(first=RoundOptions(jpeg_range=(40, 40)), second=RoundOptions(jpeg_range=(80, 80)))
    rng = np.random.default_rng(0)
    for _ in range(20):
        steps = plan_realesrgan((64, 64), rng, scale=2, options=options)
        assert [step.quality for step in of(steps, Jpeg)] == [40, 80]


def test_options_check_themselves():
    with pytest.raises(ValueError, match="kernel_probs must have 6 entries, got 1"):
        RoundOptions(kernel_probs=(1.0,))
    with pytest.raises(ValueError, match="final_sinc_prob must be from 0 to 1, got -1"):
        RealESRGANOptions(final_sinc_prob=-1)
    with pytest.raises(ValueError, match="resize_probs must be probabilities that sum to 1"):
        RoundOptions(resize_probs=(1.0, 1.0, 0.0))
