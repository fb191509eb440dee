"""Noise of known level and correlation, put into known images; textures, halftones and dithering without noise."""

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from estimates import PHOTOGRAPHS, add_noise
from estimates import photograph as whole
from PIL import Image

from swinir.degradations.estimate import Noise, estimate_noise
from swinir.degradations.estimate_noise import BUNDLED, measure_noise, noise_targets
from swinir.degradations.jpeg import jpeg
from swinir.photos.select_models import LEAST_NOISE


def photograph(name):
    return whole(name)[100:292, 100:292]


def add_grain(image, level, sigma=0.8):
    """The same noise in all channels, blurred; `level` is its standard deviation after the blur."""
    grain = cv2.GaussianBlur(np.random.default_rng(2).normal(0, 1, image.shape[:2]), (0, 0), sigma)
    return (image + grain[..., None] * (level / grain.std())).round().clip(0, 255).astype(np.uint8)


def add_shot_noise(image, at_black, at_white):
    """Noise whose standard deviation goes from one level to another with brightness."""
    level = at_black + (at_white - at_black) * (image / 255)
    return (image + np.random.default_rng(3).normal(0, 1, image.shape) * level).round().clip(0, 255).astype(np.uint8)


def halftone(image, period):
    rows, cols = np.indices(image.shape[:2]) * np.pi / period
    spot = np.sin(rows + cols) * np.sin(rows - cols) / 2 + 0.5
    return ((image[..., 0] / 255 > spot) * 255).astype(np.uint8)[..., None]


def test_weights_are_small():
    assert BUNDLED.stat().st_size <= 100_000


def test_targets_of_white_noise_have_closed_forms():
    noise = torch.from_numpy(np.random.default_rng(0).normal(0, 20, (1, 3, 512, 512)).astype(np.float32))
    fine, coarse, chroma = 2 ** noise_targets(noise).mean(dim=(0, 2, 3))
    on_luma = 20 * np.linalg.norm([0.299, 0.587, 0.114])
    assert fine.item() == pytest.approx(on_luma * np.sqrt(15 / 16), rel=0.02)
    assert coarse.item() == pytest.approx(on_luma / 4, rel=0.05)  # a mean of 16 pixels
    assert chroma.item() == pytest.approx(
        20 * np.sqrt((0.168736**2 + 0.331264**2 + 0.418688**2 + 0.081312**2 + 0.5) / 2), rel=0.02
    )


@pytest.mark.parametrize("level", [10, 25])
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_white_noise_is_known_as_such(name, level):
    noise = estimate_noise(add_noise(photograph(name), level))
    assert not noise.correlated
    assert noise.level == pytest.approx(level, abs=3)


@pytest.mark.parametrize("name", ["astronaut", "camera", "coffee"])
def test_film_grain_is_noticed(name):
    assert estimate_noise(add_grain(photograph(name), 16)).correlated
    assert estimate_noise(add_grain(photograph(name), 16)).level >= LEAST_NOISE


@pytest.mark.parametrize("name", ["astronaut", "camera", "coffee"])
def test_noise_under_jpeg_is_noticed(name):
    assert estimate_noise(jpeg(add_noise(photograph(name), 15), 75)).level >= LEAST_NOISE


@pytest.mark.parametrize("quality", [100, 50])
@pytest.mark.parametrize("name", ["astronaut", "camera", "coffee", "brick"])
def test_clean_photographs_and_jpeg_have_next_to_no_noise(name, quality):
    assert estimate_noise(jpeg(photograph(name), quality)).level < 3


def test_a_texture_throughout_is_left_alone():
    assert estimate_noise(photograph("gravel")).level < LEAST_NOISE


@pytest.mark.parametrize("period", [4, 6, 9])
def test_halftones_are_no_noise(period):
    assert estimate_noise(halftone(photograph("camera"), period)).level < 3


def test_dithering_is_no_noise():
    image = Image.fromarray(photograph("camera").squeeze())
    assert estimate_noise(np.asarray(image.convert("1"), np.uint8)[..., None] * 255).level < 3


def test_text_is_no_noise():
    assert estimate_noise(skimage.data.page()[..., None]).level < 3


def test_shadows_and_highlights_have_levels_of_their_own():
    measured = measure_noise(add_shot_noise(photograph("coffee"), 16, 2))
    assert measured.shadows > 1.3 * measured.highlights
    assert "8.0 in shadows, 3.0 in highlights" in Noise(5.0, True, 8.0, 3.0).explain()
    assert "in shadows" not in Noise(5.0, True, 5.0, 5.0).explain()


def test_large_images_are_measured_by_crops():
    noisy = add_grain(photograph("coffee"), 8)
    large = np.tile(noisy, (4, 4, 1))
    assert measure_noise(large).luma == pytest.approx(measure_noise(noisy).luma, rel=0.2)


@pytest.mark.parametrize("shape", [(19, 400, 1), (33, 70_000, 1), (1, 1, 3)])
def test_images_of_any_shape_are_measured(shape):
    image = add_noise(np.full(shape, 120, np.uint8), 10)
    level = estimate_noise(image).level
    assert level == 0 if min(shape[:2]) < 20 else level == pytest.approx(10, abs=3)
