"""Steps of the random chains: none moves the image, noise is as strong as it says, JPEG is the tester's."""

import numpy as np
import pytest
from blobs import blob, centroid

from swinir.degradations.camera import Camera
from swinir.degradations.jpeg import jpeg
from swinir.degradations.kernels import EllipticKernel, SincKernel
from swinir.degradations.steps import (
    INTERPOLATIONS,
    Blur,
    CameraNoise,
    GaussianNoise,
    Jpeg,
    MatlabResize,
    PoissonNoise,
    Resize,
    Round,
    SpeckleNoise,
    Subsample,
    apply_steps,
    check_gt,
    poisson_counts,
)

ROOT = ((0.05, 0.0, 0.0), (0.02, 0.03, 0.0), (0.01, -0.02, 0.04))


SHARPER_OR_SMALLER = [
    *(Resize(size, how) for size in ((32, 32), (41, 37), (64, 64), (17, 23), (200, 131)) for how in INTERPOLATIONS),
    MatlabResize((64, 64)),
    MatlabResize((43, 51)),
    *(Subsample(scale, sigma) for scale in (1, 2, 3, 4) for sigma in (0.1, 0.6, 2.4) if 132 % scale == 0),
    Blur(EllipticKernel(25, (2.5, 2.5))),
    Blur(EllipticKernel(25, (2.8, 0.7), 1.1)),
    Blur(EllipticKernel(9, (1.8, 0.7), 0.5, "plateau", 1.0)),
    Blur(SincKernel(21, 0.8)),
    CameraNoise(Camera(phase=(1, 0))),
    Jpeg(95),
    Jpeg(95, "4:4:4", (5, 11)),
]


@pytest.mark.parametrize("step", SHARPER_OR_SMALLER, ids=str)
def test_no_step_moves_the_picture(step):
    result = step.apply(blob((132, 132)), np.random.default_rng(0))
    error = (centroid(result) - (0.43, 0.55)) * result.shape[:2]
    assert np.abs(error).max() < 0.05  # pixels of the result


def test_subsampling_without_the_shift_would_have_been_seen():
    shifted = blob((132, 132))[::4, ::4]
    assert np.abs((centroid(shifted) - (0.43, 0.55)) * 33).min() > 0.3


@pytest.mark.parametrize("scale", [2, 4])
def test_subsampling_keeps_the_mean_of_each_block(scale):
    """A wide blur of a linear ramp, whose value at the middle of a block is its mean."""
    ramp = np.linspace(0.1, 0.9, 64, dtype=np.float32)
    image = np.broadcast_to(ramp[None, :, None], (64, 64, 3))
    result = Subsample(scale, 1.0).apply(np.ascontiguousarray(image), np.random.default_rng(0))
    means = ramp.reshape(-1, scale).mean(axis=1)
    assert np.allclose(result[8, 4:-4, 0], means[4:-4], rtol=0, atol=1e-4)


def noise_of(step, value, size=(300, 300)):
    image = np.full((*size, 3), value, np.float32)
    return step.apply(image, np.random.default_rng(0)) - np.float32(value)


@pytest.mark.parametrize("level", [2, 10, 25])
def test_colour_noise_has_its_level_in_each_channel_and_none_between(level):
    noise = noise_of(GaussianNoise("color", level), 0.5) * 255
    assert np.allclose(np.cov(noise.reshape(-1, 3).T), level**2 * np.eye(3), rtol=0, atol=0.02 * level**2)
    assert abs(noise.mean()) < 0.02 * level
    assert noise.std() == pytest.approx(level, rel=0.003)


def test_grey_noise_is_equal_in_all_channels():
    noise = noise_of(GaussianNoise("gray", 20), 0.5) * 255
    assert np.array_equal(noise[..., 0], noise[..., 1])
    assert np.array_equal(noise[..., 0], noise[..., 2])
    assert noise.std() == pytest.approx(20, rel=0.02)


def test_noise_with_a_covariance_has_it():
    noise = noise_of(GaussianNoise("covariance", 25, ROOT), 0.5)
    expected = np.array(ROOT) @ np.array(ROOT).T
    assert np.allclose(np.cov(noise.reshape(-1, 3).T), expected, rtol=0, atol=3e-5)


def test_speckle_is_proportional_to_the_image():
    deviations = [noise_of(SpeckleNoise("color", 20), value).std() for value in (0.2, 0.4, 0.6)]
    assert np.allclose(deviations, np.array([0.2, 0.4, 0.6]) * 20 / 255, rtol=0.02)
    assert np.all(noise_of(SpeckleNoise("gray", 20), 0.0) == 0)


@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("peak", [100, 1000, 10000])
def test_poisson_variance_is_proportional_to_the_mean(gray, peak):
    for value in (51 / 255, 102 / 255, 153 / 255):
        noise = noise_of(PoissonNoise(gray, peak), value)
        assert noise.var() == pytest.approx(value / peak, rel=0.03)
        assert abs(noise.mean()) < 0.03 * noise.std()
        assert np.array_equal(noise[..., 0], noise[..., 1]) == gray


def test_poisson_without_a_peak_counts_grey_levels():
    """Five levels make eight counts at white."""
    image = np.repeat(np.array([0, 60, 100, 150, 200], np.float32) / 255, 20000).reshape(100, -1, 1).repeat(3, 2)
    noise = PoissonNoise(gray=False, strength=0.5).apply(image, np.random.default_rng(0)) - image
    at_60 = noise[np.isclose(image, 60 / 255)]
    assert at_60.var() == pytest.approx(60 / 255 / 8 / 4, rel=0.05)
    assert np.all(PoissonNoise(False).apply(np.zeros((4, 4, 3), np.float32), np.random.default_rng(0)) == 0)


@pytest.mark.parametrize("mean", [0.0, 0.3, 4.0, 19.0, 20.0, 60.0, 250.0])
def test_counts_are_poissons(mean):
    counts = poisson_counts(np.full(200_000, mean, np.float32), np.random.default_rng(0)).astype(float)
    assert counts.min() >= 0
    assert np.all(counts == np.rint(counts))
    assert counts.mean() == pytest.approx(mean, rel=0.01)
    assert counts.var() == pytest.approx(mean, rel=0.025)
    if mean:
        skewness = ((counts - mean) ** 3).mean() / counts.var() ** 1.5
        assert skewness == pytest.approx(mean**-0.5, abs=0.03)


@pytest.mark.parametrize("quality", [30, 60, 95])
def test_jpeg_is_the_testers(quality):
    image = np.random.default_rng(0).random((37, 50, 3), dtype=np.float32)
    expected = jpeg(np.rint(image * 255).astype(np.uint8), quality)
    compressed = Jpeg(quality).apply(image, np.random.default_rng(0))
    assert compressed.dtype == np.float32
    assert np.array_equal(compressed, expected.astype(np.float32) / np.float32(255))


EVERY_STEP = [
    *SHARPER_OR_SMALLER,
    GaussianNoise("color", 200),
    GaussianNoise("gray", 200),
    GaussianNoise("covariance", 25, ROOT),
    SpeckleNoise("color", 200),
    PoissonNoise(gray=False, strength=3.0),
    PoissonNoise(gray=True, strength=3.0),
    PoissonNoise(gray=True, peak=150.0),
    Round(),
]


@pytest.mark.parametrize("step", EVERY_STEP, ids=str)
def test_every_step_stays_in_range_and_leaves_its_input(step):
    rng = np.random.default_rng(0)
    for image in (rng.integers(0, 2, (48, 36, 3)).astype(np.float32), np.ones((12, 12, 3), np.float32)):
        before = image.copy()
        result = step.apply(image, rng)
        assert result.dtype == np.float32
        assert np.isfinite(result).all()
        assert result.min() >= 0
        assert result.max() <= 1 + 1e-6
        assert np.array_equal(image, before)


def test_steps_follow_each_other():
    image = blob((24, 24))
    steps = [Resize((12, 12), "area"), Jpeg(90)]
    rng = np.random.default_rng(0)
    assert np.array_equal(apply_steps(steps, image, rng), steps[1].apply(steps[0].apply(image, rng), rng))


def test_a_ground_truth_that_does_not_fit_is_refused():
    assert check_gt(np.zeros((32, 64, 3), np.float32), 4) == (8, 16)
    with pytest.raises(ValueError, match=r"must be an \(H, W, 3\) float32 image, got uint8 \(32, 32, 3\)"):
        check_gt(np.zeros((32, 32, 3), np.uint8), 4)
    with pytest.raises(ValueError, match=r"got float32 \(32, 32, 1\)"):
        check_gt(np.zeros((32, 32, 1), np.float32), 4)
    with pytest.raises(ValueError, match="multiples of the scale 4, got 34x32; crop it"):
        check_gt(np.zeros((32, 34, 3), np.float32), 4)


@pytest.mark.parametrize("shift", [(0, 3), (5, 11), (15, 15)])
@pytest.mark.parametrize("channels", [1, 3])
def test_shifted_compression_is_that_of_a_larger_image_which_is_cropped(shift, channels):
    """Away from the borders, where the larger image goes on differently, blocks and values agree."""
    rows, columns = shift
    larger = np.random.default_rng(0).integers(0, 256, (96, 96, channels), dtype=np.uint8)
    inside = slice(rows, rows + 64), slice(columns, columns + 64)
    expected = jpeg(larger, 40)[inside]
    found = Jpeg(40, shift=shift).compress(np.ascontiguousarray(larger[inside]))
    assert found.shape == (64, 64, channels)
    assert np.array_equal(found[17:46, 17:46], expected[17:46, 17:46])
