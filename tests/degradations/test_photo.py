"""The chain of photographs: statistics of its noise, how often each kind occurs, and that nothing moves."""

from collections import Counter

import numpy as np
import pytest
from blobs import blob, centroid
from hypothesis import given, settings
from hypothesis import strategies as st

from swinir.degradations.camera import Camera
from swinir.degradations.photo import FilmGrain, PhotoNoise, PhotoOptions, photo, plan_photo
from swinir.degradations.steps import GaussianNoise, Jpeg, PoissonNoise, Round, luma

DRAWS = 4000
CAMERA = Camera(shot=1e-3, read=1e-5)


def noise_of(step, value=0.5, size=(256, 256), seed=0):
    image = np.full((*size, 3), value, np.float32)
    return step.apply(image, np.random.default_rng(seed)) - image


def neighbours(noise):
    """Correlation of an (H, W) noise with itself moved by one pixel."""
    noise = noise - noise.mean()
    return (noise[:, 1:] * noise[:, :-1]).mean() / noise.var()


def chroma(noise):
    return (noise - luma(noise))[..., 0]


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(0)
    return [plan_photo((64, 64), rng) for _ in range(DRAWS)]


def close(count, probability, draws=DRAWS):
    """True when a count is within four and a half standard deviations of its binomial's mean."""
    return abs(count - draws * probability) <= 4.5 * (draws * probability * (1 - probability)) ** 0.5


# The chain.


@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(8, 40), st.integers(8, 40)),
    st.sampled_from(["noise", "black", "white"]),
)
@settings(max_examples=60)
def test_the_contract_holds_for_every_size_and_image(seed, size, content):
    gt = {
        "noise": np.random.default_rng(seed).random((*size, 3), dtype=np.float32),
        "black": np.zeros((*size, 3), np.float32),
        "white": np.ones((*size, 3), np.float32),
    }[content]
    before = gt.copy()
    lq = photo(gt, np.random.default_rng(seed))
    assert lq.shape == gt.shape
    assert lq.dtype == np.float32
    levels = np.rint(lq * 255)
    assert levels.min() >= 0
    assert levels.max() <= 255
    assert np.array_equal(lq, levels.astype(np.float32) / np.float32(255))
    assert np.array_equal(gt, before)
    assert np.array_equal(lq, photo(gt, np.random.default_rng(seed)))


def test_kinds_of_noise_and_compression_occur_as_often_as_the_options_say(drawn):
    kinds = Counter(type(steps[0]) for steps in drawn)
    options = PhotoOptions()
    for kind, probability in zip(
        (PhotoNoise, FilmGrain, GaussianNoise, PoissonNoise), options.noise_probs, strict=False
    ):
        assert close(kinds[kind], probability)
    clean = options.noise_probs[4] * (1 - options.jpeg_prob)
    assert close(kinds[Round], clean)
    assert all(isinstance(steps[-1], Jpeg | Round) for steps in drawn)
    compressed = [[step for step in steps if isinstance(step, Jpeg)] for steps in drawn]
    compressed = [steps for steps in compressed if steps]
    assert close(sum(len(steps) == 2 for steps in compressed), options.double_prob, len(compressed))
    every = [step for steps in compressed for step in steps]
    assert close(sum(step.subsampling == "4:4:4" for step in every), options.full_chroma_prob, len(every))
    aligned = options.aligned_prob + (1 - options.aligned_prob) / 256
    assert close(sum(step.shift == (0, 0) for step in every), aligned, len(every))
    assert {step.shift[0] for step in every} == set(range(16))
    assert min(step.quality for step in every) == 10


def test_camera_noise_of_the_options_covers_one_to_thirty_levels_with_correlated_neighbours():
    options = PhotoOptions(noise_probs=(1, 0, 0, 0, 0))
    rng = np.random.default_rng(0)
    noises = [noise_of(plan_photo((96, 96), rng, options=options)[0], 0.3, (96, 96)) for _ in range(150)]
    levels = np.percentile([noise.std() * 255 for noise in noises], [10, 50, 90])
    assert 0.5 < levels[0] < 2
    assert 3 < levels[1] < 9
    assert 12 < levels[2] < 30
    fine, coarse = np.percentile([neighbours(luma(noise)[..., 0]) for noise in noises], [10, 90])
    assert fine < 0.4
    assert coarse > 0.65


def test_the_chain_moves_nothing():
    """The mean of many draws lies where the image lies, through noise at other sizes and shifted blocks."""
    gt, rng = blob((64, 64)), np.random.default_rng(0)
    mean = np.mean([photo(gt, rng, options=PhotoOptions(shot_range=(1e-5, 1e-3))) for _ in range(200)], axis=0)
    error = (centroid(mean.astype(np.float32)) - centroid(gt)) * 64
    assert np.abs(error).max() < 0.1


def test_misfits_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="photo keeps the size of images, got scale 2; set it to 1"):
        photo(np.zeros((8, 8, 3), np.float32), rng, scale=2)
    with pytest.raises(ValueError, match="float32 image, got uint8"):
        photo(np.zeros((8, 8, 3), np.uint8), rng)
    with pytest.raises(ValueError, match="noise_probs must be probabilities that sum to 1"):
        PhotoOptions(noise_probs=(0.5, 0.5, 0.5, 0, 0))
    with pytest.raises(ValueError, match="double_prob must be from 0 to 1, got 2"):
        PhotoOptions(double_prob=2)


# Camera noise.


def test_without_noise_the_camera_leaves_the_image_alone():
    image = np.random.default_rng(0).random((32, 32, 3), dtype=np.float32)
    for size in ((32, 32), (24, 24), (45, 45)):
        step = PhotoNoise(Camera(tone_curve=True, demosaicing="edge_aware"), demosaiced=False, size=size)
        assert np.allclose(step.apply(image, np.random.default_rng(0)), image, rtol=0, atol=1e-6)


def test_a_demosaiced_image_has_artefacts_which_are_small_at_twice_the_size():
    """Two kinds of pixels alternate in diagonal stripes, each a plain colour of its own."""
    stripes = (np.indices((32, 32)).sum(axis=0)[..., None] // 2 % 2).astype(np.float32)
    image = stripes * np.float32([0.8, 0.4, 0.3]) + (1 - stripes) * np.float32([0.3, 0.5, 0.7])
    camera = Camera(demosaicing="edge_aware")
    same, twice = (
        np.abs(PhotoNoise(camera, True, (n, n), "area").apply(image, np.random.default_rng(0)) - image).mean()
        for n in (32, 64)
    )
    assert same > 0.02
    assert 0.001 < twice < same / 2


@pytest.mark.parametrize("demosaicing", ["bilinear", "edge_aware"])
def test_demosaicing_correlates_neighbours(demosaicing):
    camera = Camera(shot=1e-3, read=1e-5, demosaicing=demosaicing)
    noise = noise_of(PhotoNoise(camera, demosaiced=False, size=(256, 256)))
    assert 0.2 < neighbours(noise[..., 0]) < 0.7


def test_noise_made_at_a_smaller_size_is_coarser_and_at_a_larger_size_finer():
    same, small, large = (
        neighbours(luma(noise_of(PhotoNoise(CAMERA, demosaiced=False, size=(n, n), interpolation=how)))[..., 0])
        for n, how in ((256, "bilinear"), (160, "bicubic"), (512, "area"))
    )
    assert small > same + 0.15
    assert large < same - 0.1


def test_smoothed_noise_is_coarser_and_as_strong():
    plain = noise_of(PhotoNoise(CAMERA, demosaiced=False, size=(256, 256)))
    smooth = noise_of(PhotoNoise(CAMERA, demosaiced=False, size=(256, 256), luma_sigma=0.8, chroma_sigma=2.0))
    for part in (lambda noise: luma(noise)[..., 0], chroma):
        assert neighbours(part(smooth)) > neighbours(part(plain)) + 0.15
        assert part(smooth).std() == pytest.approx(part(plain).std(), rel=0.02)
    assert neighbours(chroma(smooth)) > 0.9


def test_sharpened_noise_is_stronger_and_chroma_noise_has_its_gain():
    plain = noise_of(PhotoNoise(CAMERA, demosaiced=False, size=(256, 256)))
    step = PhotoNoise(CAMERA, demosaiced=False, size=(256, 256), sharpening=1.0, chroma_gain=0.5)
    assert luma(noise_of(step)).std() > 1.2 * luma(plain).std()
    assert chroma(noise_of(step)).std() == pytest.approx(0.5 * chroma(plain).std(), rel=0.01)


def test_shot_noise_grows_with_brightness_before_the_gamma():
    """Twice the signal has twice the variance; the gamma's slope is undone. Read noise is left out."""
    step = PhotoNoise(Camera(shot=1e-4), demosaiced=False, size=(256, 256))
    variances = []
    for linear in (0.1, 0.2, 0.4):
        noise = noise_of(step, linear ** (1 / 2.2))
        slope = linear ** (1 / 2.2 - 1) / 2.2
        variances.append((noise / slope).var())
    assert variances[1] / variances[0] == pytest.approx(2, rel=0.05)
    assert variances[2] / variances[1] == pytest.approx(2, rel=0.05)


# Film grain.


@pytest.mark.parametrize("sigma", [0.5, 0.8, 1.2])
def test_grain_has_its_level_and_the_correlation_of_its_blur(sigma):
    noise = noise_of(FilmGrain(gray=False, level=12, sigma=sigma), size=(400, 400))
    assert noise.std() * 255 == pytest.approx(12, rel=0.02)
    taps = np.exp(-(np.arange(-8, 9.0) ** 2) / 2 / sigma**2)
    expected = (taps[1:] * taps[:-1]).sum() / (taps**2).sum()
    assert neighbours(noise[..., 0]) == pytest.approx(expected, abs=0.02)
    assert np.abs(np.corrcoef(noise.reshape(-1, 3).T) - np.eye(3)).max() < 0.02


def test_grain_is_strongest_in_the_mid_tones():
    step = FilmGrain(gray=True, level=10, sigma=0.7, fade=0.8)
    levels = [noise_of(step, value).std() * 255 for value in (0.2, 0.5, 0.8)]
    assert levels == pytest.approx([10 * (1 - 0.8 * 0.36), 10, 10 * (1 - 0.8 * 0.36)], rel=0.03)
    noise = noise_of(step)
    assert np.array_equal(noise[..., 0], noise[..., 2])
