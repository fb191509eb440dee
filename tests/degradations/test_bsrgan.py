"""BSRGAN's chains: what a draw promises, how often each step occurs, and that nothing moves."""

import random
from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest
from blobs import blob, centroid
from hypothesis import given, settings
from hypothesis import strategies as st

from swinir.degradations.bsrgan import BSRGANOptions, bsrgan, plan_bsrgan, random_gaussian
from swinir.degradations.bsrgan_plus import BSRGANPlusOptions, bsrgan_plus, plan_bsrgan_plus
from swinir.degradations.realesrgan import plan_realesrgan, realesrgan
from swinir.degradations.steps import (
    Blur,
    CameraNoise,
    GaussianNoise,
    Jpeg,
    MatlabResize,
    PoissonNoise,
    Resize,
    SpeckleNoise,
    Subsample,
    apply_steps,
)

CHAINS = [bsrgan, bsrgan_plus, realesrgan]
PLANS = {"bsrgan": plan_bsrgan, "bsrgan_plus": plan_bsrgan_plus, "realesrgan": plan_realesrgan}
DRAWS = 2000


def plans(make, *, draws=DRAWS, size=(64, 64), scale=4, **options):
    rng = np.random.default_rng(0)
    return [make(size, rng, scale=scale, **options) for _ in range(draws)]


def close(count, probability, draws=DRAWS):
    """True when a count is within four and a half standard deviations of its binomial's mean."""
    return abs(count - draws * probability) <= 4.5 * (draws * probability * (1 - probability)) ** 0.5


def of(steps, kind):
    return [step for step in steps if type(step) is kind]


def image(seed, height, width):
    return np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)


@pytest.mark.parametrize("degrade", CHAINS)
def test_a_seed_decides_everything(degrade):
    gt = image(0, 48, 64)
    draws = [degrade(gt, np.random.default_rng(seed), scale=4) for seed in (1, 1, 2)]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


@pytest.mark.parametrize("degrade", CHAINS)
def test_no_global_generator_is_touched(degrade):
    numpy_before, python_before = np.random.get_state(), random.getstate()
    cv2.setRNGSeed(5)
    expected = cv2.randu(np.zeros((4, 4), np.uint8), 0, 255)
    cv2.setRNGSeed(5)
    gt = image(0, 32, 32)
    rng = np.random.default_rng(0)
    for _ in range(20):
        degrade(gt, rng, scale=2)
    assert np.array_equal(cv2.randu(np.zeros((4, 4), np.uint8), 0, 255), expected)
    assert random.getstate() == python_before
    after = np.random.get_state()
    assert np.array_equal(after[1], numpy_before[1])
    assert after[2:] == numpy_before[2:]


@pytest.mark.parametrize("degrade", CHAINS)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 14),
    st.integers(0, 14),
    st.sampled_from([1, 2, 3, 4]),
    st.sampled_from(["noise", "black", "white", "stripes"]),
)
@settings(max_examples=60)
def test_the_contract_holds_for_every_size_scale_and_image(degrade, seed, extra_rows, extra_cols, scale, content):
    height, width = ((-(-32 // scale) + extra) * scale for extra in (extra_rows, extra_cols))
    gt = {
        "noise": image(seed, height, width),
        "black": np.zeros((height, width, 3), np.float32),
        "white": np.ones((height, width, 3), np.float32),
        "stripes": np.repeat(np.indices((height, width)).sum(axis=0)[..., None] % 2, 3, 2).astype(np.float32),
    }[content]
    before = gt.copy()
    lq = degrade(gt, np.random.default_rng(seed), scale=scale)
    assert lq.shape == (height // scale, width // scale, 3)
    assert lq.dtype == np.float32
    levels = np.rint(lq * 255)
    assert levels.min() >= 0
    assert levels.max() <= 255
    assert np.array_equal(lq, levels.astype(np.float32) / np.float32(255))
    assert np.array_equal(gt, before)


@pytest.mark.parametrize("degrade", CHAINS)
def test_a_large_and_a_long_image_work(degrade):
    rng = np.random.default_rng(0)
    assert degrade(image(0, 32, 600), rng, scale=4).shape == (8, 150, 3)
    assert degrade(image(0, 400, 360), rng, scale=4).shape == (100, 90, 3)


@pytest.mark.parametrize("degrade", CHAINS)
def test_misfits_are_refused(degrade):
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="multiples of the scale 4, got 34x32"):
        degrade(image(0, 32, 34), rng, scale=4)
    with pytest.raises(ValueError, match="float32 image, got uint8"):
        degrade(np.zeros((32, 32, 3), np.uint8), rng, scale=4)


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("name", PLANS)
def test_the_average_of_many_draws_is_registered(name, scale):
    side, centre = 96, (0.44, 0.56)
    rng = np.random.default_rng(0)
    gt = blob((side, side), centre, width=0.12)
    total = np.zeros((side // scale, side // scale, 3))
    for _ in range(150):
        total += apply_steps(PLANS[name]((side, side), rng, scale=scale), gt, rng)
    error = (centroid(total / 150, low=0.35) - centre) * (side // scale)
    assert np.abs(error).max() < 0.12  # pixels of the low-quality image


QUIET = BSRGANOptions(noise_range=(0, 0), jpeg_range=(95, 95))


def subsamples(steps):
    return bool(of(steps, Subsample))


def halves_as_matlab(steps):
    return bool(of(steps, MatlabResize))


def halves_by_opencv(steps):
    return len(of(steps, Resize)) == 3 or (subsamples(steps) and len(of(steps, Resize)) == 2)


def interpolates(steps):
    return not subsamples(steps) and not halves_as_matlab(steps) and len(of(steps, Resize)) == 2


@pytest.mark.parametrize(
    ("scale", "branch"),
    [
        (2, subsamples),
        (2, interpolates),
        (4, subsamples),
        (4, interpolates),
        (4, halves_as_matlab),
        (4, halves_by_opencv),
    ],
)
def test_every_way_to_reduce_is_registered(scale, branch):
    side, centre = 96, (0.44, 0.56)
    gt = blob((side, side), centre, width=0.12)
    rng = np.random.default_rng(0)
    drawn = plans(PLANS["bsrgan"], draws=300, size=(side, side), scale=scale, options=QUIET)
    chosen = [steps for steps in drawn if branch(steps) and not of(steps, CameraNoise)][:20]
    assert len(chosen) >= 10
    errors = [(centroid(apply_steps(s, gt, rng), low=0.35) - centre) * (side // scale) for s in chosen]
    assert np.abs(np.mean(errors, axis=0)).max() < 0.05
    assert np.abs(errors).max() < 0.25


def test_steps_occur_as_often_as_published():
    drawn = plans(PLANS["bsrgan"])
    assert close(sum(len(of(s, Jpeg)) == 2 for s in drawn), 0.9)
    assert close(sum(bool(of(s, CameraNoise)) for s in drawn), 0.25)
    assert close(sum(subsamples(s) for s in drawn), 0.25)
    assert close(sum(halves_as_matlab(s) for s in drawn), 0.125)
    assert close(sum(halves_by_opencv(s) for s in drawn), 0.125)
    assert close(sum(halves_as_matlab(s) or halves_by_opencv(s) for s in drawn), 0.25)
    blurs = [step.kernel for s in drawn for step in of(s, Blur)]
    assert len(blurs) == 2 * DRAWS
    assert close(sum(not kernel.separable for kernel in blurs), 0.5, 2 * DRAWS)
    assert not any(of(s, PoissonNoise) or of(s, SpeckleNoise) for s in drawn)
    channels = Counter(of(s, GaussianNoise)[0].channels for s in drawn)
    for name, probability in (("color", 0.4), ("gray", 0.4), ("covariance", 0.2)):
        assert close(channels[name], probability)


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_only_scale_four_is_halved_first(scale):
    drawn = plans(PLANS["bsrgan"], draws=200, size=(48, 48), scale=scale)
    assert not any(halves_as_matlab(s) or halves_by_opencv(s) for s in drawn)


def test_draws_fill_the_published_ranges_and_keep_to_them():
    drawn = plans(PLANS["bsrgan"], options=replace(BSRGANOptions(), half_prob=0))
    kernels = [step.kernel for s in drawn for step in of(s, Blur)]
    assert {kernel.size for kernel in kernels} == set(range(7, 26, 2))
    largest = max(kernel.sigma[0] for kernel in kernels if kernel.separable)
    assert 2.8 * 0.99 < largest <= 2.8
    largest = max(max(kernel.sigma) ** 2 for kernel in kernels if not kernel.separable)
    assert 8 * 0.99 < largest <= 8
    assert {step.quality for s in drawn for step in of(s, Jpeg)} == set(range(30, 96))
    assert {int(step.level) for s in drawn for step in of(s, GaussianNoise)} == set(range(2, 26))
    sides = {step.size[0] for s in drawn for step in of(s, Resize)[:1] if len(of(s, Resize)) == 2}
    assert min(sides) == 8
    assert max(sides) > 56


def test_shuffling_is_uniform_but_for_the_order_of_the_two_reductions():
    drawn = plans(PLANS["bsrgan"], options=replace(BSRGANOptions(), half_prob=0, camera_prob=0, jpeg_prob=0))
    reduction = (Resize, Subsample)
    orders = Counter()
    for steps in drawn:
        names = ["size" if isinstance(s, reduction) else type(s).__name__ for s in steps[:-1]]
        assert steps[-1].__class__ is Jpeg
        last = max(i for i, name in enumerate(names) if name == "size")
        assert steps[last].size == (16, 16)
        orders[tuple(names)] += 1
    assert len(orders) == 30  # two blurs, two reductions and a noise
    for count in orders.values():
        assert close(count, 1 / 30)


def test_extra_noise_joins_the_shuffle_when_asked():
    drawn = plans(PLANS["bsrgan"], options=BSRGANOptions(poisson_prob=0.3, speckle_prob=0.2))
    assert close(sum(bool(of(s, PoissonNoise)) for s in drawn), 0.3)
    assert close(sum(bool(of(s, SpeckleNoise)) for s in drawn), 0.2)
    poissons = [step for s in drawn for step in of(s, PoissonNoise)]
    assert close(sum(step.gray for step in poissons), 0.5, len(poissons))
    assert all(100 <= step.peak <= 10000 for step in poissons)


def test_random_covariances_are_covariances_no_stronger_than_the_largest_level():
    rng = np.random.default_rng(0)
    options = BSRGANOptions(noise_channel_probs=(0, 0, 1))
    for _ in range(200):
        root = np.array(random_gaussian(rng, options).root)
        assert root.shape == (3, 3)
        covariance = root @ root.T
        assert np.all(covariance >= -1e-12)
        assert np.diag(covariance).max() <= (25 / 255) ** 2 * (1 + 1e-9)


def test_the_extended_chain_has_two_rounds_in_order_unless_shuffled():
    drawn = plans(PLANS["bsrgan_plus"], options=BSRGANPlusOptions(poisson_prob=0, speckle_prob=0, camera_prob=0))
    in_order = (Blur, Resize, GaussianNoise, Jpeg) * 2 + (Resize, Jpeg)
    assert close(sum(tuple(map(type, s)) == in_order for s in drawn), 0.9 + 0.1 / 2520, DRAWS)
    assert all(sorted(map(str, map(type, s))) == sorted(map(str, in_order)) for s in drawn)


def test_the_extended_chains_noise_occurs_as_often_as_published():
    drawn = plans(PLANS["bsrgan_plus"])
    for kind in (PoissonNoise, SpeckleNoise, CameraNoise):
        assert close(sum(len(of(s, kind)) for s in drawn), 0.1, 2 * DRAWS)


def test_the_extended_chain_enlarges_reduces_and_keeps_as_often_as_published():
    drawn = plans(PLANS["bsrgan_plus"], size=(640, 640), options=BSRGANPlusOptions(shuffle_prob=0))
    factors = np.array([of(s, Resize)[0].size[0] / 640 for s in drawn])
    assert close((factors > 1).sum(), 0.2)
    assert close((factors < 1).sum(), 0.7)
    assert 0.124 <= factors.min() < 0.13
    assert factors.max() <= 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jpeg_prob": 1.5}, "jpeg_prob must be from 0 to 1, got 1.5"),
        ({"noise_range": (25, 2)}, r"noise_range must be \(smaller, larger\) and not negative, got \(25, 2\)"),
        ({"noise_channel_probs": (0.5, 0.5, 0.5)}, "noise_channel_probs must be probabilities that sum to 1"),
    ],
)
def test_options_check_themselves(options, message):
    with pytest.raises(ValueError, match=message):
        BSRGANOptions(**options)
