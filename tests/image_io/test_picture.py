"""Samples to numbers and back, and what a picture may be made of."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from swinir.image_io.picture import Picture, from_unit, to_unit

DTYPES = (np.uint8, np.uint16)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_sample_survives_the_way_to_a_number_and_back(dtype):
    samples = np.arange(np.iinfo(dtype).max + 1).astype(dtype)
    numbers = to_unit(samples)
    assert numbers.dtype == np.float32
    assert (numbers.min(), numbers.max()) == (0, 1)
    assert np.array_equal(from_unit(numbers, dtype), samples)


@given(arrays.arrays(np.float64, 20, elements=st.floats(-2, 3)), st.sampled_from(DTYPES))
def test_numbers_become_the_nearest_sample(numbers, dtype):
    top = np.iinfo(dtype).max
    expected = np.clip(numbers, 0, 1) * top
    assert (abs(from_unit(numbers, dtype) - expected) <= 0.5 + 1e-2).all()


def test_a_half_goes_to_the_even_neighbour():
    assert from_unit(np.array([0.5]), np.uint8).tolist() == [128]  # of 127.5
    assert from_unit(np.array([0.5]), np.uint16).tolist() == [32768]  # of 32767.5


def test_floats_are_clipped_and_otherwise_kept():
    numbers = np.array([-0.25, 0.25, 1.5], np.float32)
    assert from_unit(numbers, np.float32).tolist() == [0, 0.25, 1]
    assert to_unit(numbers) is numbers


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [*DTYPES, np.float32])
def test_what_is_no_number_is_refused(bad, dtype):
    with pytest.raises(ValueError, match="finite"):
        from_unit(np.array([0.5, bad]), dtype)


def test_other_dtypes_are_refused():
    with pytest.raises(ValueError, match="not int32"):
        from_unit(np.zeros(2), np.int32)
    with pytest.raises(ValueError, match="got int32"):
        to_unit(np.zeros(2, np.int32))


@pytest.mark.parametrize(
    ("pixels", "alpha", "message"),
    [
        (np.zeros((2, 3)), None, r"pixels must be .* float64 \(2, 3\)"),
        (np.zeros((2, 3, 4), np.uint8), None, r"pixels must be .* \(2, 3, 4\)"),
        (np.zeros((2, 3, 3), np.uint8), np.zeros((2, 3), np.uint16), "alpha must be .* uint8 as the pixels"),
        (np.zeros((2, 3, 3), np.uint8), np.zeros((3, 2), np.uint8), r"alpha must be \(2, 3\)"),
    ],
)
def test_a_picture_of_anything_else_is_refused(pixels, alpha, message):
    with pytest.raises(ValueError, match=message):
        Picture(pixels, alpha)
