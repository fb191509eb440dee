"""Blur kernels against closed forms and scipy's Bessel function, filtering against scipy's convolution."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, special

from swinir.degradations.kernels import EllipticKernel, SincKernel, blur, gaussian_row

SIGMAS = st.floats(1e-4, 4)
PROFILES = st.sampled_from(["gaussian", "generalized", "plateau"])


def moments(kernel):
    """Mean (x, y) and covariance of a kernel's weights, from its middle."""
    size = kernel.shape[0]
    y, x = np.mgrid[:size, :size] - size // 2
    mean = np.array([(kernel * x).sum(), (kernel * y).sum()])
    x, y = x - mean[0], y - mean[1]
    xy = (kernel * x * y).sum()
    return mean, np.array([[(kernel * x * x).sum(), xy], [xy, (kernel * y * y).sum()]])


@given(st.integers(0, 12), SIGMAS, SIGMAS, st.floats(-math.pi, math.pi), PROFILES, st.floats(0.5, 4))
@settings(max_examples=60)
def test_elliptic_kernels_sum_to_one_and_stay_centred(half, first, second, theta, profile, beta):
    kernel = EllipticKernel(2 * half + 1, (first, second), theta, profile, beta).weights()
    assert kernel.shape == (2 * half + 1, 2 * half + 1)
    assert kernel.sum() == pytest.approx(1)
    assert kernel.min() >= 0
    assert np.allclose(kernel, kernel[::-1, ::-1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("theta", [0, 0.4, math.pi / 2, 2.0, -1.0])
@pytest.mark.parametrize("sigma", [(1.0, 1.0), (2.0, 0.9), (0.8, 2.5)])
def test_a_gaussian_kernel_has_the_covariance_it_states(sigma, theta):
    kernel = EllipticKernel(31, sigma, theta)
    mean, covariance = moments(kernel.weights())
    assert np.allclose(mean, 0, atol=1e-9)
    assert np.allclose(covariance, kernel.covariance, rtol=0, atol=2e-3)
    c, s = math.cos(theta), math.sin(theta)
    xx, yy = ((sigma[0] * c) ** 2 + (sigma[1] * s) ** 2, (sigma[0] * s) ** 2 + (sigma[1] * c) ** 2)
    xy = (sigma[0] ** 2 - sigma[1] ** 2) * c * s
    assert np.allclose(kernel.covariance, [[xx, xy], [xy, yy]])


def test_the_first_axis_turns_from_right_to_down():
    kernel = EllipticKernel(21, (4.0, 0.5), math.pi / 4).weights()
    assert kernel[15, 15] > 1000 * kernel[5, 15]


def test_profiles_are_their_formulas():
    size, sigma, beta = 9, (1.7, 0.8), 1.6
    for profile in ("gaussian", "generalized", "plateau"):
        kernel = EllipticKernel(size, sigma, 0, profile, beta).weights()
        for x, y in ((0, 0), (1, 0), (0, 1), (3, 2), (-4, 1)):
            d = (x / sigma[0]) ** 2 + (y / sigma[1]) ** 2
            value = {
                "gaussian": math.exp(-d / 2),
                "generalized": math.exp(-(d**beta) / 2),
                "plateau": 1 / (1 + d**beta),
            }
            assert kernel[4 + y, 4 + x] / kernel[4, 4] == pytest.approx(value[profile])


def test_generalized_with_a_beta_of_one_is_gaussian():
    options = {"size": 15, "sigma": (2.0, 1.0), "theta": 0.7}
    generalized = EllipticKernel(**options, profile="generalized", beta=1).weights()
    assert np.allclose(generalized, EllipticKernel(**options).weights())


@pytest.mark.parametrize("size", [1, 7, 13, 21])
@pytest.mark.parametrize("cutoff", [math.pi / 5, 1.5, math.pi])
def test_sinc_is_the_jinc_function(size, cutoff):
    kernel = SincKernel(size, cutoff).weights()
    y, x = np.mgrid[:size, :size] - size // 2
    radius = np.hypot(x, y)
    radius[size // 2, size // 2] = 1
    expected = cutoff * special.j1(cutoff * radius) / (2 * math.pi * radius)
    expected[size // 2, size // 2] = cutoff**2 / (4 * math.pi)
    assert np.allclose(kernel, expected / expected.sum(), rtol=0, atol=1e-12)


def test_sinc_passes_low_frequencies_and_stops_high_ones():
    response = np.abs(np.fft.fft2(SincKernel(21, math.pi / 2).weights(), (128, 128)))
    frequency = np.abs(np.fft.fftfreq(128)) * 2 * math.pi
    radius = np.hypot(*np.meshgrid(frequency, frequency))
    assert response[radius < 0.35 * math.pi].min() > 0.8
    assert response[radius > 0.65 * math.pi].max() < 0.2


@given(st.integers(0, 12), st.floats(0, 5), st.sampled_from([0, 0.5, 1.5, 1.0]))
@settings(max_examples=40)
def test_a_shifted_row_sums_to_one_whatever_its_width(half, sigma, shift):
    row = gaussian_row(2 * half + 1, sigma, shift=shift)
    assert row.sum() == pytest.approx(1)
    assert row.min() >= 0


@pytest.mark.parametrize("shift", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("sigma", [1e-3, 0.1, 0.5, 2.0])
def test_a_shifted_row_is_centred_where_it_says(sigma, shift):
    row = gaussian_row(25, sigma, shift=shift)
    assert row @ (np.arange(25) - 12) == pytest.approx(shift, abs=1e-6)


@pytest.mark.parametrize("shape", [(40, 33, 3), (5, 4, 3), (1, 1, 3), (2, 60, 3)])
@pytest.mark.parametrize(
    "kernel",
    [
        EllipticKernel(21, (1.3, 1.3)),
        EllipticKernel(25, (2.6, 1.1), 0.6),
        EllipticKernel(9, (0.5, 0.4), 2.0, "plateau", 1.5),
        SincKernel(21, 2.0),
    ],
)
def test_blur_is_a_convolution_with_mirrored_borders(kernel, shape):
    image = np.random.default_rng(0).random(shape, dtype=np.float32)
    expected = ndimage.convolve(image.astype(np.float64), kernel.weights()[..., None], mode="mirror")
    blurred = blur(image, kernel)
    assert blurred.dtype == np.float32
    assert np.allclose(blurred, expected, rtol=0, atol=2e-3)  # a thousandth of the weight is cut off


@pytest.mark.parametrize("sigma", [(2.8, 2.7), (2.8, 0.4), (1.5, 0.9), (0.5, 0.3)])
def test_blur_cuts_off_a_thousandth_of_the_weight_at_most(sigma):
    kernel = EllipticKernel(25, sigma, 0.6)
    impulse = np.zeros((25, 25, 1), np.float32)
    impulse[12, 12] = 1
    response = blur(impulse, kernel).reshape(25, 25)
    assert kernel.weights()[response == 0].sum() <= 1e-3


@pytest.mark.parametrize("kernel", [EllipticKernel(7, (1e-9, 1e-9)), EllipticKernel(25, (0.0, 0.0), 1.0)])
def test_a_kernel_without_width_changes_nothing(kernel):
    image = np.random.default_rng(0).random((9, 8, 3), dtype=np.float32)
    assert np.allclose(blur(image, kernel), image, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [0, -3, 8])
def test_an_even_size_is_refused(size):
    for make in (lambda: EllipticKernel(size, (1, 1)), lambda: SincKernel(size, 1), lambda: gaussian_row(size, 1)):
        with pytest.raises(ValueError, match=f"must be odd and positive, got {size}"):
            make()


def test_unknown_profiles_and_cutoffs_are_refused():
    with pytest.raises(ValueError, match="profile must be one of gaussian, generalized, plateau, got 'box'"):
        EllipticKernel(7, (1, 1), profile="box")
    for cutoff in (0, 4):
        with pytest.raises(ValueError, match="cutoff must be above 0 and at most pi"):
            SincKernel(7, cutoff)
