"""NIQE: its fits against samples of known distributions, what it does not see, and what it must rank."""

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage
from scipy.io import savemat
from scripted import load_script
from typer.testing import CliRunner

from swinir.degradations.jpeg import jpeg
from swinir.image_io.image import read, write
from swinir.metrics.niqe import (
    NUM_FEATURES,
    PATCH,
    _describe,
    bundled,
    features,
    fit,
    fit_aggd,
    load,
    niqe,
    normalise,
    save,
)


def draw(shape, left, right, count=400_000, seed=0):
    """Samples whose density falls as exp(-(|x| / scale)**shape), with a scale for each side."""
    rng = np.random.default_rng(seed)
    size = rng.gamma(1 / shape, 1, count) ** (1 / shape)
    is_left = rng.uniform(size=count) < left / (left + right)
    return np.where(is_left, -left * size, right * size)


@pytest.fixture(scope="module")
def photograph():
    """(384, 480, 3): a part of the astronaut, without compression."""
    return read(Path(skimage.__file__).parent / "data" / "astronaut.png")[:384, :480]


@pytest.mark.parametrize(
    ("shape", "left", "right"), [(2.0, 1.0, 1.0), (1.0, 0.3, 0.3), (0.6, 1.0, 2.0), (3.0, 2.0, 0.7), (0.9, 0.1, 0.25)]
)
def test_known_distributions_are_recovered(shape, left, right):
    found = np.array(fit_aggd(draw(shape, left, right)[None]))[:, 0]
    assert found == pytest.approx([shape, left, right], rel=0.03)


def test_a_gaussian_has_shape_2_and_root_2_times_its_deviation():
    samples = np.random.default_rng(1).normal(0, 5, (1, 400_000))
    shape, left, right = fit_aggd(samples)
    assert shape[0] == pytest.approx(2, abs=0.02)
    assert (left[0], right[0]) == pytest.approx((5 * 2**0.5,) * 2, rel=0.01)


def test_rows_are_fitted_apart():
    rows = np.stack([draw(1.0, 1, 1), draw(2.0, 1, 1)])
    assert fit_aggd(rows)[0] == pytest.approx([1, 2], rel=0.03)


def test_samples_on_one_side_of_zero_have_no_fit():
    assert np.isnan(fit_aggd(np.ones((1, 10)))).all()
    assert np.isnan(fit_aggd(np.zeros((1, 10)))).all()


def test_normalised_contrast_by_the_papers_formula():
    gray = np.random.default_rng(0).uniform(0, 255, (20, 30))
    x = np.arange(-3, 4)
    weights = np.exp(-(x[:, None] ** 2 + x**2) / (2 * (7 / 6) ** 2))
    weights /= weights.sum()
    part = gray[5:12, 9:16]  # around row 8, column 12
    mean = (weights * part).sum()
    contrast = np.sqrt((weights * (part - mean) ** 2).sum())
    normalised, seen = normalise(gray)
    assert seen[8, 12] == pytest.approx(contrast)
    assert normalised[8, 12] == pytest.approx((gray[8, 12] - mean) / (contrast + 1))


def test_features_of_white_noise_are_those_of_its_distribution():
    """For independent values, the normalised contrast has light tails, and neighbours lean against one another.

    The local mean is taken away, in which the nearer neighbours, across and down, weigh more.
    """
    noise = np.random.default_rng(0).normal(128, 30, (4 * PATCH, 4 * PATCH, 1)).clip(0, 255).round().astype(np.uint8)
    values = features(noise)[0].mean(axis=0)
    shape, means = values[0], values[[3, 7, 11, 15]]
    assert shape > 2
    assert values[6] == pytest.approx(values[2], rel=0.02)  # down as across
    assert means[:2].max() < means[2:].min() < means[2:].max() < 0


def test_brightness_does_not_matter(photograph):
    dark = (photograph // 2).astype(np.uint8)
    a, b = features(dark)[0], features(dark + 85)[0]  # 73 levels of luma
    assert np.nanmax(np.abs(a - b)) < 1e-3


def test_upside_down_is_the_same(photograph):
    assert niqe(photograph[::-1, ::-1]) == pytest.approx(niqe(photograph), abs=1e-6)


def test_grey_as_one_channel_or_three_is_the_same(photograph):
    gray = photograph[..., :1]
    assert niqe(gray) == niqe(np.repeat(gray, 3, axis=2))


def spoiled(image, kind, strength):
    if kind == "noise":
        noise = np.random.default_rng(0).normal(0, strength, image.shape)
        return (image + noise).clip(0, 255).round().astype(np.uint8)
    if kind == "blur":
        return cv2.GaussianBlur(image, (0, 0), strength)
    return jpeg(image, 100 - strength)


@pytest.mark.parametrize(
    ("kind", "strengths"), [("noise", (8, 20, 50)), ("blur", (0.8, 1.6, 3.2)), ("jpeg", (60, 80, 92))]
)
def test_the_more_a_photograph_is_spoiled_the_higher(photograph, kind, strengths):
    found = [niqe(photograph), *(niqe(spoiled(photograph, kind, strength)) for strength in strengths)]
    assert found == sorted(found)
    assert found[-1] > found[0] + 1


def test_the_border_is_left_out(photograph):
    framed = np.pad(photograph[4:-4, 4:-4], ((4, 4), (4, 4), (0, 0)))
    assert niqe(framed, crop_border=4) == niqe(photograph, crop_border=4)


def test_a_fit_to_photographs_is_near_to_them_and_survives_its_file(photograph, tmp_path):
    tiles = [photograph[:192, :192], photograph[192:, :288], photograph[:, 192:]]
    noisy = [spoiled(tile, "noise", 3 + i) for i, tile in enumerate(tiles * 6)]
    pristine = fit(noisy)
    assert pristine.num_images == 18
    assert pristine.num_patches > NUM_FEATURES
    save(tmp_path / "a.npz", pristine)
    again = load(tmp_path / "a.npz")
    assert niqe(noisy[2], again) == niqe(noisy[2], pristine)
    assert niqe(noisy[2], again) < niqe(spoiled(photograph, "noise", 40), again)


def test_the_mean_and_covariance_of_a_fit_are_numpys(photograph):
    images = [spoiled(photograph, "noise", 2 + i) for i in range(12)]
    patches = []
    for image in images:
        values, sharpness = features(image)
        patches.append(values[sharpness > 0.75 * sharpness.max()])
    patches = np.concatenate(patches)
    pristine = fit(images)
    assert pristine.num_patches == len(patches)
    assert np.allclose(pristine.mean, patches.mean(axis=0))
    assert np.allclose(pristine.covariance, np.cov(patches.T))


def test_the_distance_is_that_of_two_gaussians(photograph):
    values, pristine = features(photograph)[0], bundled()
    difference = values.mean(axis=0) - pristine.mean
    pooled = (np.cov(values.T) + pristine.covariance) / 2
    assert niqe(photograph) == pytest.approx(np.sqrt(difference @ np.linalg.solve(pooled, difference)), rel=1e-5)


def test_the_bundled_parameters_are_a_distribution():
    pristine = bundled()
    assert np.linalg.eigvalsh(pristine.covariance).min() > 0
    assert pristine.num_patches > 1000


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((95, 200, 3), np.uint8), "NIQE needs at least 96x96 pixels, got 200x95"),
        (np.full((100, 100, 3), 7, np.uint8), "NIQE needs contrast in at least one patch"),
    ],
    ids=["small", "flat"],
)
def test_images_that_have_no_statistics_are_refused(image, message):
    with pytest.raises(ValueError, match=message):
        niqe(image)


def test_too_few_photographs_are_refused(photograph):
    with pytest.raises(ValueError, match="sharp patches of 96x96 are too few to fit; give more photographs"):
        fit([photograph[:96, :96], photograph[:50]])


def test_the_published_parameters_give_the_published_value(public_folder):
    """5.72957338 by the authors' program in MATLAB R2021a, as BasicSR states it."""
    package = importlib.util.find_spec("basicsr")
    if package is None or package.origin is None:
        pytest.skip(
            "the parameters come with BasicSR; install it with: pip install --no-deps --no-build-isolation basicsr"
        )
    published = load(Path(package.origin).parent / "metrics" / "niqe_pris_params.npz")
    assert published.published
    assert niqe(read(public_folder("testsets") / "Set14" / "baboon.png"), published) == pytest.approx(
        5.72957338, abs=1e-6
    )


def test_the_bundled_parameters_are_not_the_published_ones():
    assert not bundled().published


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("modelparameters.mat", ("mu_prisparam", "cov_prisparam")),
        ("niqe_pris_params.npz", ("mu_pris_param", "cov_pris_param")),
    ],
)
def test_files_of_the_authors_and_of_basicsr_are_read(tmp_path, name, keys):
    content = dict(zip(keys, (bundled().mean[None], bundled().covariance), strict=True))
    (savemat if name.endswith("mat") else lambda file, content: np.savez(file, **content))(tmp_path / name, content)
    found = load(tmp_path / name)
    assert np.array_equal(found.mean, bundled().mean)
    assert np.array_equal(found.covariance, bundled().covariance)


def test_neighbours_go_around_the_patch_and_shapes_are_thousandths_as_in_the_authors_program():
    patch = np.random.default_rng(0).standard_normal((1, 48, 48))
    found = _describe(patch)
    assert _describe(np.roll(patch, (5, 7), axis=(1, 2))) == pytest.approx(found, rel=1e-9)
    assert found[0, [0, 2, 6, 10, 14]] * 1000 == pytest.approx(np.round(found[0, [0, 2, 6, 10, 14]] * 1000), abs=1e-6)


def test_files_of_something_else_are_refused(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"nothing")
    np.savez(tmp_path / "b.npz", mean=np.zeros(3), covariance=np.zeros((3, 3)), num_images=1, num_patches=2)
    np.savez(tmp_path / "c.npz", mean=np.zeros(36))
    (tmp_path / "d.mat").write_bytes(b"nothing")
    (tmp_path / "f.npz").write_bytes((tmp_path / "c.npz").read_bytes()[:100])
    savemat(tmp_path / "e.mat", {"x": 1})
    for name, message in (
        ("a.npz", "not a file of NIQE"),
        ("b.npz", r"parameters of shape \(3,\)"),
        ("c.npz", "not a file of NIQE"),
        ("d.mat", "not a file of NIQE"),
        ("e.mat", "not a file of NIQE"),
        ("f.npz", "not a file of NIQE"),
    ):
        with pytest.raises(ValueError, match=message):
            load(tmp_path / name)


def test_the_script_fits_a_folder(photograph, tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(12):
        write(tmp_path / "in" / f"{i}.png", spoiled(photograph, "noise", 2 + i))
    result = CliRunner().invoke(
        load_script("scripts/fit_niqe.py").app, [str(tmp_path / "in"), "-o", str(tmp_path / "a.npz")]
    )
    assert result.exit_code == 0
    assert "of 12 photographs" in result.output
    assert load(tmp_path / "a.npz").num_images == 12
