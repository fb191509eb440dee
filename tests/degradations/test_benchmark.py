"""Bicubic against MATLAB's files and a slow oracle, benchmark noise against NumPy's stream, JPEG against OpenCV."""

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swinir.degradations.jpeg import jpeg
from swinir.degradations.noise import benchmark_noise
from swinir.degradations.resize import imresize
from swinir.image_io.image import read

SEEDS = st.integers(0, 2**32 - 1)


def cubic(x):
    """Keys (1981), Eq. 15, with a = -1/2, for one number."""
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def resizing_matrix(length_in, length_out, scale):
    """The whole linear map of one axis, weight by weight; borders by walking back and forth."""
    shrink = min(scale, 1.0)
    matrix = np.zeros((length_out, length_in))
    for i in range(length_out):
        centre = (i + 0.5) / scale - 0.5
        reach = math.ceil(2 / shrink) + 1
        for j in range(math.floor(centre) - reach, math.ceil(centre) + reach + 1):
            inside = j
            while not 0 <= inside < length_in:
                inside = -1 - inside if inside < 0 else 2 * length_in - 1 - inside
            matrix[i, inside] += cubic(shrink * (centre - j))
        matrix[i] /= matrix[i].sum()
    return matrix


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
@pytest.mark.parametrize("name", ["baby", "bird", "butterfly", "head", "woman"])
def test_bicubic_is_identical_to_matlabs_files(public_folder, name, scale):
    folder = public_folder("testsets/Set5")
    gt = read(folder / "HR" / f"{name}.png")
    expected = read(folder / "LR_bicubic" / f"X{scale}" / f"{name}x{scale}.png")
    gt = gt[: expected.shape[0] * scale, : expected.shape[1] * scale]
    if scale == 8:  # these files were rounded once, at the end
        ours = np.floor(imresize(gt.astype(np.float64), 1 / 8).clip(0, 255) + 0.5).astype(np.uint8)
    else:
        ours = imresize(gt, 1 / scale)
    assert np.array_equal(ours, expected)


@given(
    SEEDS, st.integers(1, 15), st.integers(1, 15), st.sampled_from([1 / 8, 1 / 3, 0.37, 0.5, 0.9, 1.0, 1.3, 2.0, 3.7])
)
@settings(max_examples=40)
def test_bicubic_by_a_scale_is_the_kernels_definition(seed, height, width, scale):
    image = np.random.default_rng(seed).normal(size=(height, width))
    rows = resizing_matrix(height, math.ceil(height * scale), scale)
    cols = resizing_matrix(width, math.ceil(width * scale), scale)
    assert np.allclose(imresize(image, scale), rows @ image @ cols.T, rtol=0, atol=1e-10)


@given(SEEDS, st.integers(1, 15), st.integers(1, 15), st.integers(1, 25), st.integers(1, 25))
@settings(max_examples=40)
def test_bicubic_to_a_size_is_the_kernels_definition(seed, height, width, new_height, new_width):
    image = np.random.default_rng(seed).normal(size=(height, width))
    rows = resizing_matrix(height, new_height, new_height / height)
    cols = resizing_matrix(width, new_width, new_width / width)
    assert np.allclose(imresize(image, size=(new_height, new_width)), rows @ image @ cols.T, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("size", "first"), [((10, 6), "cols"), ((5, 12), "rows"), ((8, 8), "rows"), ((40, 35), "cols")]
)
def test_bytes_are_rounded_after_each_axis_the_one_that_shrinks_most_first(size, first):
    image = np.random.default_rng(0).integers(0, 256, (16, 16)).astype(np.uint8)
    rows, cols = (resizing_matrix(16, n, n / 16) for n in size)
    result = image.astype(float)
    for axis in ("rows", "cols") if first == "rows" else ("cols", "rows"):
        result = rows @ result if axis == "rows" else result @ cols.T
        result = np.floor(result.clip(0, 255) + 0.5)
    assert np.array_equal(imresize(image, size=size), result.astype(np.uint8))


@given(SEEDS, st.integers(1, 40), st.integers(1, 40), st.floats(0.05, 5), st.sampled_from([1, 3]))
@settings(max_examples=40)
def test_any_size_and_scale_gives_the_size_rounded_up(seed, height, width, scale, channels):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, channels)).astype(np.uint8)
    resized = imresize(image, scale)
    for n, m in zip((height, width), resized.shape[:2], strict=True):
        assert n * scale - 1e-6 <= m < n * scale + 1 + 1e-6
    assert resized.shape[2] == channels
    assert resized.dtype == np.uint8


@given(st.integers(0, 255), st.integers(1, 30), st.integers(1, 30), st.floats(0.1, 4))
@settings(max_examples=40)
def test_a_constant_stays_constant(value, height, width, scale):
    image = np.full((height, width, 1), value, np.uint8)
    assert np.all(imresize(image, scale) == value)
    assert np.allclose(imresize(image / 255, scale), value / 255, rtol=0, atol=1e-13)


@pytest.mark.parametrize("scale", [0.1, 0.3, 0.7, 1 / 3, 1 / 7, 1.1])
def test_a_size_that_comes_out_whole_is_not_rounded_up_by_float_error(scale):
    for length in (10, 20, 30, 70, 210):
        whole = round(length * scale)
        if abs(whole - length * scale) < 1e-6:
            assert imresize(np.zeros((length, 1)), scale).shape[0] == whole


@given(st.tuples(*[st.integers(1, 30)] * 2, *[st.integers(1, 40)] * 2, st.integers(1, 12)), st.booleans())
@settings(max_examples=200)
def test_blocks_of_rows_are_those_of_the_whole(sizes, rounded):
    height, width, high, wide, step = sizes
    image = np.random.default_rng(height).random((height, width, 3)).astype(np.float32)
    image = (image * 255).astype(np.uint8) if rounded else image
    blocks = [imresize(image, size=(high, wide), rows=slice(y, min(y + step, high))) for y in range(0, high, step)]
    assert np.array_equal(np.concatenate(blocks), imresize(image, size=(high, wide)))


def test_channels_are_resized_independently():
    image = np.random.default_rng(0).integers(0, 256, (20, 17, 3)).astype(np.uint8)
    together = imresize(image, 0.4)
    for c in range(3):
        assert np.array_equal(together[..., c], imresize(image[..., c], 0.4))


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
def test_dtype_and_number_of_axes_are_kept(dtype):
    for shape in ((12, 10), (12, 10, 1), (12, 10, 3)):
        resized = imresize(np.ones(shape, dtype), 0.5)
        assert resized.dtype == dtype
        assert resized.shape == (6, 5, *shape[2:])


def test_the_input_is_left_as_it_was():
    image = np.random.default_rng(0).random((9, 9, 3))
    before = image.copy()
    imresize(image, 1.0)[:] = 0
    imresize(image, 2.0)[:] = 0
    assert np.array_equal(image, before)


def test_float_values_are_neither_rounded_nor_clipped():
    step = np.repeat([0.0, 1000.0], 8)[None].repeat(4, 0)
    resized = imresize(step, 2.0)
    assert resized.min() < 0
    assert resized.max() > 1000


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (np.zeros((4, 4), np.int32), {"scale": 2}, "must be uint8 or float, got int32"),
        (np.zeros((4, 4), bool), {"scale": 2}, "must be uint8 or float, got bool"),
        (np.zeros(4), {"scale": 2}, r"must be \(H, W\) or \(H, W, C\)"),
        (np.zeros((0, 4)), {"scale": 2}, "not empty"),
        (np.zeros((4, 4)), {}, "either scale or size"),
        (np.zeros((4, 4)), {"scale": 2, "size": (8, 8)}, "either scale or size"),
        (np.zeros((4, 4)), {"scale": 0}, "scale must be positive, got 0"),
        (np.zeros((4, 4)), {"scale": -1}, "scale must be positive, got -1"),
        (np.zeros((4, 4)), {"scale": math.nan}, "scale must be positive, got nan"),
        (np.zeros((4, 4)), {"scale": math.inf}, "scale must be positive, got inf"),
        (np.zeros((4, 4)), {"size": (0, 4)}, "size must be at least 1x1"),
    ],
)
def test_resizing_what_cannot_be_resized_is_refused(image, options, message):
    with pytest.raises(ValueError, match=message):
        imresize(image, **options)


@pytest.mark.parametrize("level", [15, 25, 50])
def test_noise_is_numpys_legacy_stream_laid_out_in_bgr(level):
    image = np.random.default_rng(0).integers(0, 256, (7, 5, 3)).astype(np.uint8)
    bgr = image[..., ::-1].astype(np.float32) / 255
    noisy = (bgr + np.random.RandomState(0).normal(0, level / 255, bgr.shape)).astype(np.float32)
    assert np.array_equal(benchmark_noise(image, level), noisy[..., ::-1])


def test_noise_on_grey_images_is_the_same_stream():
    image = np.random.default_rng(0).integers(0, 256, (7, 5, 1)).astype(np.uint8)
    noise = np.random.RandomState(0).normal(0, 25 / 255, (7, 5, 1))
    assert np.array_equal(benchmark_noise(image, 25), (np.float32(image) / 255 + noise).astype(np.float32))


def test_noise_is_not_clipped_and_float32():
    dark, bright = (benchmark_noise(np.full((32, 32, 3), value, np.uint8), 50) for value in (0, 255))
    assert dark.min() < 0
    assert bright.max() > 1
    assert dark.dtype == np.float32


def test_noise_leaves_the_global_generator_alone():
    before = np.random.get_state()
    benchmark_noise(np.zeros((8, 8, 3), np.uint8), 15)
    after = np.random.get_state()
    assert np.array_equal(before[1], after[1])
    assert before[2:] == after[2:]


def test_noise_of_another_seed_differs():
    image = np.zeros((8, 8, 1), np.uint8)
    assert not np.array_equal(benchmark_noise(image, 15), benchmark_noise(image, 15, seed=1))


def test_negative_noise_is_refused():
    with pytest.raises(ValueError, match="noise_level must not be negative, got -1"):
        benchmark_noise(np.zeros((8, 8, 1), np.uint8), -1)


def smooth_image(channels):
    yy, xx = np.mgrid[:50, :61][:, :, :, None]
    k = np.arange(channels)
    wave = 127 + 60 * np.sin(xx / (4 + k)) + 40 * np.cos(yy / (3 + k))
    return (wave + np.random.default_rng(0).normal(0, 8, wave.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("quality", [10, 40, 95])
def test_colour_jpeg_is_opencvs_in_bgr(quality):
    image = smooth_image(3)
    data = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    assert np.array_equal(jpeg(image, quality), cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])


@pytest.mark.parametrize("quality", [10, 40, 95])
def test_grey_jpeg_is_opencvs(quality):
    image = smooth_image(1)
    data = cv2.imencode(".jpg", image[..., 0], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    assert np.array_equal(jpeg(image, quality)[..., 0], cv2.imdecode(data, cv2.IMREAD_GRAYSCALE))


@pytest.mark.parametrize("channels", [1, 3])
def test_higher_jpeg_quality_means_smaller_error(channels):
    image = smooth_image(channels)
    errors = [np.mean((jpeg(image, q).astype(float) - image) ** 2) for q in (5, 10, 20, 40, 80, 100)]
    assert errors == sorted(errors, reverse=True)
    assert len(set(errors)) == len(errors)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_keeps_shape_and_dtype_and_the_input(channels):
    image = smooth_image(channels)
    before = image.copy()
    compressed = jpeg(image, 10)
    assert compressed.shape == image.shape
    assert compressed.dtype == np.uint8
    assert np.array_equal(image, before)


def test_chroma_subsampling_shows_in_the_error_of_chroma_alone():
    """At the highest quality, with a pattern of one pixel in chroma that halved planes cannot hold."""
    gray = np.full((32, 32, 1), 128, np.uint8)
    assert np.array_equal(jpeg(gray, 100, "4:2:0"), jpeg(gray, 100, "4:4:4"))
    stripes = np.where(np.arange(32)[None, :, None] % 2, [150, 120, 110], [106, 136, 146]) + np.zeros((32, 1, 1))
    kept, halved = (np.abs(jpeg(stripes.astype(np.uint8), 100, s) - stripes).mean() for s in ("4:4:4", "4:2:0"))
    assert kept < 2
    assert halved > 10


def test_chroma_subsampling_stands_in_the_header(monkeypatch):
    """The frame header lists a component's sampling factors, 0x22 or 0x11 for luma, six bytes after its size."""
    encode, files = cv2.imencode, []
    monkeypatch.setattr(cv2, "imencode", lambda *args: files.append(encode(*args)) or files[-1])
    for subsampling in ("4:2:0", "4:4:4"):
        jpeg(np.zeros((16, 16, 3), np.uint8), 90, subsampling)
    headers = [data.tobytes() for _, data in files]
    assert [data[data.index(b"\xff\xc0") + 11] for data in headers] == [0x22, 0x11]
    with pytest.raises(ValueError, match="subsampling must be 4:2:0 or 4:4:4, got '4:1:1'"):
        jpeg(np.zeros((16, 16, 3), np.uint8), 90, "4:1:1")


def test_jpeg_refuses_what_it_cannot_hold():
    with pytest.raises(ValueError, match="jpeg_quality must be from 0 to 100, got 101"):
        jpeg(smooth_image(1), 101)
    with pytest.raises(ValueError, match="JPEG cannot hold an image of 70000x1"):
        jpeg(np.zeros((1, 70000, 1), np.uint8), 40)
