"""The camera without noise gives the image back; with noise, what a sensor would do."""

from dataclasses import replace

import numpy as np
import pytest

from swinir.degradations.camera import Camera, camera_noise, random_camera

PHASES = [(0, 0), (0, 1), (1, 0), (1, 1)]


@pytest.mark.parametrize("tone_curve", [False, True])
@pytest.mark.parametrize("demosaicing", ["bilinear", "edge_aware"])
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("color", [(0.2, 0.5, 0.8), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.6, 0.1, 0.3)])
def test_a_plain_colour_comes_back(phase, color, demosaicing, tone_curve):
    image = np.full((11, 14, 3), color, np.float32)
    camera = Camera(phase=phase, demosaicing=demosaicing, tone_curve=tone_curve)
    developed = camera_noise(image, camera, np.random.default_rng(0))
    assert developed.dtype == np.float32
    assert np.allclose(developed, image, rtol=0, atol=2e-3)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("demosaicing", ["bilinear", "edge_aware"])
def test_a_grey_ramp_comes_back_in_its_place(phase, demosaicing):
    """Demosaicing keeps what is linear in the sensor's values, whichever pixels see red."""
    ramp = np.linspace(0.2, 0.8, 24, dtype=np.float32)
    image = np.repeat((ramp[:, None] * ramp[None, :])[..., None], 3, axis=2) ** np.float32(1 / 2.2)
    developed = camera_noise(image, Camera(phase=phase, demosaicing=demosaicing), np.random.default_rng(0))
    assert np.allclose(developed[1:-1, 1:-1], image[1:-1, 1:-1], rtol=0, atol=1e-3)


def test_noise_has_the_variance_of_shot_and_read_noise():
    """Grey images in the range where the steps are nearly linear; half of the pixels of a channel are measured."""
    camera = Camera(1.0, 1.0, 1.0, crosstalk=0.0, shot=2e-4, read=1e-5)
    for linear in (0.1, 0.3, 0.6):
        image = np.full((200, 200, 3), linear ** (1 / 2.2), np.float32)
        noise = camera_noise(image, camera, np.random.default_rng(0)) ** 2.2 - linear
        assert noise[0::2, 1::2, 1].var() == pytest.approx(camera.shot * linear + camera.read, rel=0.08)


def test_noise_is_correlated_between_neighbours():
    image = np.full((100, 100, 3), 0.5, np.float32)
    noise = camera_noise(image, Camera(shot=1e-3, read=1e-5), np.random.default_rng(0)) - 0.5
    assert (noise[:, 1:, 0] * noise[:, :-1, 0]).mean() > 0.3 * noise[..., 0].var()


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 2), (3, 2), (33, 40)])
def test_any_size_stays_in_range(size):
    rng = np.random.default_rng(0)
    for value in (0.0, 0.5, 1.0):
        image = np.full((*size, 3), value, np.float32)
        developed = camera_noise(image, replace(random_camera(rng), shot=0.012, read=1e-3), rng)
        assert developed.shape == image.shape
        assert developed.dtype == np.float32
        assert np.isfinite(developed).all()
        assert developed.min() >= 0
        assert developed.max() <= 1


def test_random_cameras_stay_within_the_published_ranges():
    rng = np.random.default_rng(0)
    cameras = [random_camera(rng) for _ in range(500)]
    for name, low, high in (
        ("red_gain", 1.9, 2.4),
        ("blue_gain", 1.5, 1.9),
        ("shot", 1e-4, 0.012),
        ("crosstalk", 0.4, 0.6),
    ):
        values = [getattr(camera, name) for camera in cameras]
        assert min(values) >= low
        assert max(values) <= high
    slope, intercept = np.polyfit(np.log([c.shot for c in cameras]), np.log([c.read for c in cameras]), 1)
    assert slope == pytest.approx(2.18, abs=0.05)
    assert intercept == pytest.approx(1.20, abs=0.3)
    assert {camera.phase for camera in cameras} == set(PHASES)


def test_the_input_is_left_as_it_was():
    image = np.random.default_rng(0).random((8, 8, 3), dtype=np.float32)
    before = image.copy()
    camera_noise(image, Camera(shot=0.01, read=0.001), np.random.default_rng(0))
    assert np.array_equal(image, before)


def test_noise_without_demosaicing_keeps_the_mean_of_shadows():
    image = np.full((64, 64, 3), 0.1, np.float32)
    rng = np.random.default_rng(0)
    camera = Camera(shot=0.002, read=1e-5)
    draws = [camera_noise(image, camera, rng, demosaiced=False) for _ in range(30)]
    assert np.std(draws) > 0.02
    assert np.mean(draws) == pytest.approx(0.1, abs=5e-4)
    biased = [camera_noise(image, camera, rng, demosaiced=True) for _ in range(30)]
    assert abs(np.mean(biased) - 0.1) > 2e-3
