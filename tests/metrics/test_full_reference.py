"""The three metrics against the released program's values, scikit-image, closed forms, and each other."""

import json
import math

import cv2
import numpy as np
import pytest
import torch
from conftest import DATA
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from swinir.image_io.color import luma
from swinir.image_io.image import read
from swinir.metrics.full_reference import psnr, psnrb, ssim

ROWS = json.loads((DATA / "metrics.json").read_text())
FORMULAS = [row for row in ROWS if row["case"]["kind"] == "formula"]
ON_IMAGES = [row for row in ROWS if row["case"]["kind"] != "formula"]
DECIBEL, SIMILARITY = 1e-5, 1e-7


def formula_pair(h, w, c):
    """The pair that the goldens' README defines, in the channel order of OpenCV."""
    yy, xx = np.mgrid[:h, :w][:, :, :, None]
    k = np.arange(c)
    a = 127 + 100 * np.sin(xx / (5 + k)) + 20 * np.cos(yy / (3 + k))
    b = 127 + 100 * np.sin((xx + k) / (5 + k)) + 20 * np.cos(yy / (4 + k)) + 6 * ((xx // 8 + yy // 8) % 2)
    return tuple(x.round().clip(0, 255).astype(np.uint8)[..., ::-1] for x in (a, b))


def image_pair(case, public_folder):
    """(restored, gt) of a golden on public images."""

    def load(folder):
        (path,) = public_folder(f"testsets/{folder}").glob(f"{case['image']}{suffix}.*")
        return read(path)

    def compress(image):
        data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, case["quality"]])[1]
        return cv2.imdecode(data, cv2.IMREAD_UNCHANGED).reshape(image.shape)[..., ::-1]

    suffix = ""
    match case["kind"]:
        case "set5_cv2_cubic":
            gt = load("Set5/HR")
            suffix = f"x{case['scale']}"
            lq = load(f"Set5/LR_bicubic/X{case['scale']}")
            restored = cv2.resize(lq, None, fx=case["scale"], fy=case["scale"], interpolation=cv2.INTER_CUBIC)
            gt = gt[: restored.shape[0], : restored.shape[1]]
        case "classic5_jpeg":
            gt = load("classic5")
            restored = compress(gt)
        case "mcmaster_jpeg":
            gt = load("McMaster")
            restored = compress(gt)
        case "set12_noise25_clipped":
            gt = load("Set12")
            noisy = gt / 255 + np.random.RandomState(0).normal(0, 25 / 255, gt.shape)
            restored = (noisy.clip(0, 1) * 255).round().astype(np.uint8)
        case other:
            raise AssertionError(other)
    return restored, gt


def assert_row(row, a, b):
    border = row["border"]
    assert list(a.shape[:2]) == row["shape"][:2]
    assert psnr(a, b, crop_border=border) == pytest.approx(row["psnr"], abs=DECIBEL)
    assert ssim(a, b, crop_border=border) == pytest.approx(row["ssim"], abs=SIMILARITY)
    assert psnrb(a, b, crop_border=border) == pytest.approx(row["psnrb"], abs=DECIBEL)
    if "psnr_y" in row:
        a, b = luma(a), luma(b)
        assert psnr(a, b, crop_border=border) == pytest.approx(row["psnr_y"], abs=DECIBEL)
        assert ssim(a, b, crop_border=border) == pytest.approx(row["ssim_y"], abs=SIMILARITY)
        assert psnrb(a, b, crop_border=border) == pytest.approx(row["psnrb_y"], abs=DECIBEL)


def case_name(row):
    return "-".join(str(value) for value in [*row["case"].values(), row["border"]])


@pytest.mark.parametrize("row", FORMULAS, ids=case_name)
def test_metrics_are_those_of_the_released_program_on_formulas(row):
    case = row["case"]
    assert_row(row, *formula_pair(case["h"], case["w"], case["c"]))


@pytest.mark.parametrize("row", ON_IMAGES, ids=case_name)
def test_metrics_are_those_of_the_released_program_on_public_images(row, public_folder):
    assert_row(row, *image_pair(row["case"], public_folder))


def test_every_golden_is_used():
    assert (len(FORMULAS), len(ON_IMAGES)) == (12, 25)


def random_pair(seed, height, width, channels, spread=40):
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 256, (height, width, channels))
    b = (a + rng.integers(-spread, spread + 1, a.shape)).clip(0, 255)
    return a.astype(np.uint8), b.astype(np.uint8)


SEEDS = st.integers(0, 2**32 - 1)
SIDES = st.integers(16, 40)
CHANNELS = st.sampled_from([1, 3])


@pytest.mark.parametrize("difference", [1, 5, 255])
def test_psnr_of_a_constant_difference_has_a_closed_form(difference):
    a = np.zeros((20, 30, 3), np.uint8)
    assert psnr(a, a + np.uint8(difference)) == pytest.approx(20 * math.log10(255 / difference), abs=1e-12)


def test_psnr_of_one_wrong_value_has_a_closed_form():
    a = np.full((16, 25, 3), 100, np.uint8)
    b = a.copy()
    b[3, 4, 1] = 110
    assert psnr(a, b) == pytest.approx(10 * math.log10(255**2 * 16 * 25 * 3 / 10**2), abs=1e-12)


def test_identical_images_have_infinite_psnr_and_an_ssim_of_one():
    a, _ = random_pair(0, 32, 24, 3)
    assert psnr(a, a) == math.inf
    assert ssim(a, a) == pytest.approx(1, abs=1e-12)


def test_unsigned_values_do_not_wrap_around():
    dark, bright = np.zeros((16, 16, 1), np.uint8), np.full((16, 16, 1), 255, np.uint8)
    assert psnr(dark, bright) == psnr(bright, dark) == 0


@given(SEEDS, SIDES, SIDES, CHANNELS)
@settings(max_examples=25)
def test_ssim_is_scikit_images_on_the_valid_region(seed, height, width, channels):
    a, b = random_pair(seed, height, width, channels)
    _, per_pixel = structural_similarity(
        a,
        b,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
        channel_axis=2,
        full=True,
    )
    assert ssim(a, b) == pytest.approx(per_pixel[5:-5, 5:-5].mean(), abs=1e-9)


def blocking_effect(x):
    """Yim and Bovik, Section III, pair by pair, for sides that are multiples of eight."""
    height, width = x.shape
    at_borders, elsewhere = [], []
    for i in range(height):
        for j in range(width - 1):
            (at_borders if j % 8 == 7 else elsewhere).append((x[i, j] - x[i, j + 1]) ** 2)
    for i in range(height - 1):
        for j in range(width):
            (at_borders if i % 8 == 7 else elsewhere).append((x[i, j] - x[i + 1, j]) ** 2)
    excess = np.mean(at_borders) - np.mean(elsewhere)
    return excess * math.log2(8) / math.log2(min(height, width)) if excess > 0 else 0


@given(SEEDS, st.integers(2, 4), st.integers(2, 4), CHANNELS, st.integers(0, 40))
@settings(max_examples=10)
def test_psnrb_adds_the_blocking_effect_of_the_paper(seed, rows, cols, channels, step):
    gt, restored = random_pair(seed, 8 * rows, 8 * cols, channels, spread=5)
    yy, xx = np.mgrid[: 8 * rows, : 8 * cols]
    blocks = step * ((yy // 8 + xx // 8) % 2)[..., None]
    restored = (restored // 4 + blocks).astype(np.uint8)
    expected = []
    for c in range(channels):
        a, b = restored[..., c].astype(float), gt[..., c].astype(float)
        expected.append(10 * math.log10(255**2 / (np.mean((a - b) ** 2) + blocking_effect(a))))
    assert psnrb(restored, gt) == pytest.approx(np.mean(expected), abs=1e-9)


def test_psnrb_counts_the_blocks_of_the_restored_image_only():
    yy, xx = np.mgrid[:32, :32]
    blocky = (100 + 20 * ((yy // 8 + xx // 8) % 2)).astype(np.uint8)[..., None]
    flat = np.full_like(blocky, 110)
    assert psnrb(blocky, flat) < psnr(blocky, flat)
    assert psnrb(flat, blocky) == pytest.approx(psnr(flat, blocky), abs=1e-12)


@given(SEEDS, SIDES, SIDES, CHANNELS)
@settings(max_examples=25)
def test_psnr_and_ssim_are_symmetric(seed, height, width, channels):
    a, b = random_pair(seed, height, width, channels)
    assert psnr(a, b) == psnr(b, a)
    assert ssim(a, b) == pytest.approx(ssim(b, a), abs=1e-12)


@given(SEEDS, SIDES, SIDES)
@settings(max_examples=25)
def test_psnrb_of_a_channel_does_not_exceed_its_psnr(seed, height, width):
    a, b = random_pair(seed, height, width, 1)
    assert psnrb(a, b) <= psnr(a, b)


@given(SEEDS, SIDES, SIDES, st.integers(0, 2), st.sampled_from([psnr, ssim, psnrb]))
@settings(max_examples=40)
def test_a_border_is_the_same_as_cropping_by_hand(seed, height, width, border, metric):
    a, b = random_pair(seed, height + 8, width + 8, 3)
    inside = slice(border, height + 8 - border), slice(border, width + 8 - border)
    assert metric(a, b, crop_border=border) == metric(a[inside], b[inside])


@pytest.mark.parametrize("metric", [psnr, ssim, psnrb])
def test_images_that_cannot_be_compared_are_refused(metric):
    a = np.zeros((20, 20, 3), np.uint8)
    with pytest.raises(ValueError, match=r"one size, got \(20, 20, 3\) and \(20, 21, 3\)"):
        metric(a, np.zeros((20, 21, 3), np.uint8))
    with pytest.raises(ValueError, match=r"\(H, W, C\)"):
        metric(a[..., 0], a[..., 0])
    with pytest.raises(ValueError, match="a border of 10 leaves nothing of 20x20"):
        metric(a, a, crop_border=10)
    with pytest.raises(ValueError, match="a border of -1"):
        metric(a, a, crop_border=-1)


def test_images_too_small_for_a_metric_are_refused_with_the_size_needed():
    with pytest.raises(ValueError, match="SSIM needs at least 11x11 pixels, got 30x10"):
        ssim(*random_pair(0, 10, 30, 1))
    with pytest.raises(ValueError, match="PSNR-B needs two blocks of 8 pixels, got 15x15"):
        psnrb(*random_pair(0, 15, 15, 1))


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [
        ((0, 0, 0), 16),
        ((255, 255, 255), 235),
        ((255, 0, 0), 16 + 65.481),
        ((0, 255, 0), 16 + 128.553),
        ((0, 0, 255), 16 + 24.966),
        ((51, 102, 204), 16 + 0.2 * 65.481 + 0.4 * 128.553 + 0.8 * 24.966),
    ],
)
def test_luma_is_bt601s_studio_range_unrounded(rgb, expected):
    y = luma(np.full((2, 3, 3), rgb, np.uint8))
    assert y.shape == (2, 3, 1)
    assert y.dtype == np.float32
    assert y == pytest.approx(expected, abs=2e-5)


def test_luma_of_a_grey_image_is_refused():
    for shape in ((4, 4, 1), (4, 4)):
        with pytest.raises(ValueError, match=r"luma needs an \(H, W, 3\) image"):
            luma(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("metric", [psnr, ssim, psnrb])
@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (
            np.linspace(0, 1, 24 * 24).reshape(24, 24, 1),
            ValueError,
            r"these are in \[0, 1\]; convert: \(image \* 255\)",
        ),
        (np.full((24, 24, 1), np.nan), ValueError, "must be finite"),
        (np.zeros((24, 24, 1), np.uint16), ValueError, "must be uint8, or luma as floats in .*, got uint16"),
        (torch.zeros(24, 24, 1), TypeError, "uint8 arrays, got Tensor"),
    ],
)
def test_values_that_would_give_a_meaningless_number_are_refused(metric, image, error, message):
    with pytest.raises(error, match=message):
        metric(image, image)


def test_float_luma_is_taken_in_its_own_range():
    first, second = np.zeros((24, 24, 3), np.uint8), np.full((24, 24, 3), 255, np.uint8)
    assert psnr(luma(first), luma(second)) == pytest.approx(20 * math.log10(255 / 219), abs=1e-4)
