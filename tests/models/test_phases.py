"""Enlargement by any scale: places of output pixels, weights of offsets, and images in closed form."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from swinir.models.phases import COEFFICIENTS, DEGREE, Axis, PhaseWeights, legendre, pixels_of

SIDES = st.integers(1, 40), st.integers(1, 160)


def place(i, side, size):
    """Nearest low-quality pixel of an output pixel, and the offset from its centre."""
    centre = (i + Fraction(1, 2)) * side / size
    return centre // 1, centre % 1 - Fraction(1, 2)


@given(*SIDES)
def test_every_output_pixel_lies_in_its_nearest_pixel_at_its_offset(side, size):
    axis = Axis.of(side, size)
    expected = [place(i, side, size) for i in range(size)]
    assert axis.nearest.tolist() == [nearest for nearest, _ in expected]
    assert axis.offsets[axis.phase].tolist() == pytest.approx([float(offset) for _, offset in expected], abs=1e-12)


@given(*SIDES, st.data())
def test_parts_of_an_axis_have_the_pixels_of_the_whole_and_no_pixel_twice(side, size, data):
    cut = data.draw(st.integers(0, side))
    parts = [pixels_of(part, side, size) for part in (slice(0, cut), slice(cut, side))]
    assert (parts[0].start, parts[0].stop, parts[1].stop) == (0, parts[1].start, size)
    whole = Axis.of(side, size)
    for part in parts:
        axis = Axis.of(side, size, part)
        assert torch.equal(axis.nearest, whole.nearest[part])
        assert torch.equal(axis.offsets[axis.phase], whole.offsets[whole.phase][part])
    assert bool((whole.nearest[parts[0]] < cut).all() and (whole.nearest[parts[1]] >= cut).all())


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_at_integer_scales_pixels_are_those_of_sub_pixel_convolutions(scale):
    assert pixels_of(slice(3, 7), 10, 10 * scale) == slice(3 * scale, 7 * scale)
    assert len(Axis.of(10, 10 * scale).offsets) == scale


def test_polynomials_are_those_of_legendre_and_orthonormal():
    nodes, weights = np.polynomial.legendre.leggauss(2 * DEGREE)
    values = legendre(torch.from_numpy(nodes / 2)).numpy()
    expected = [np.sqrt(2 * n + 1) * np.polynomial.legendre.Legendre.basis(n)(nodes) for n in range(DEGREE + 1)]
    np.testing.assert_allclose(values, np.stack(expected, -1), atol=1e-12)
    np.testing.assert_allclose(values.T @ (values * weights[:, None] / 2), np.eye(DEGREE + 1), atol=1e-12)


def coefficients(height, width, **given):
    """(1, J * 1, height, width) zeros, with the given (height, width) coefficients of degrees "yx"."""
    values = torch.zeros(1, COEFFICIENTS, height, width, dtype=torch.float64)
    for name, value in given.items():
        y, x = map(int, name[1:])
        values[0, y * (DEGREE + 1) + x] = value
    return values


SIZES = [((4, 6), (10, 15)), ((5, 3), (17, 4)), ((3, 4), (3, 13))]  # x2.5; two scales; x1 and x3.25


@pytest.mark.parametrize(("given", "size"), SIZES)
def test_the_first_coefficient_alone_is_enlarged_by_nearest_neighbours(given, size):
    picture = torch.rand(given, dtype=torch.float64)
    enlarged = PhaseWeights().double()(coefficients(*given, d00=picture), *map(Axis.of, given, size))
    rows, cols = ([place(i, a, b)[0] for i in range(b)] for a, b in zip(given, size, strict=True))
    assert torch.equal(enlarged[0, 0], picture[rows][:, cols])


@pytest.mark.parametrize(("given", "size"), SIZES)
def test_a_slope_in_each_pixel_makes_a_straight_ramp(given, size):
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in given), indexing="ij")
    slope = 1 / (2 * 3**0.5)  # of the normalised polynomial of degree 1
    ramp = coefficients(*given, d00=3 * y + 5 * x, d10=3 * slope, d01=5 * slope)
    enlarged = PhaseWeights().double()(ramp, *map(Axis.of, given, size)).detach()[0, 0]
    rows, cols = (np.arange(b) + 0.5 for b in size)
    expected = 3 * (rows * given[0] / size[0] - 0.5)[:, None] + 5 * (cols * given[1] / size[1] - 0.5)
    np.testing.assert_allclose(enlarged.numpy(), expected, atol=1e-12)


def test_the_learned_change_depends_on_offset_and_scale_and_leaves_the_first_weight():
    phases = PhaseWeights().double()
    torch.nn.init.normal_(phases.fc2.weight, generator=torch.Generator().manual_seed(0))
    two, four = (phases.weights(Axis.of(1, size), Axis.of(1, size)) for size in (2, 4))
    assert bool((two[0] == 1).all() and (four[0] == 1).all())
    assert two[1:, 0, 0].allclose(two[1:, 0, 1]) is False
    # The same offset of 1/6 at x3 and at x1.5.
    at = [next(i for i, d in enumerate(axis.offsets) if abs(d) < 1e-9) for axis in (Axis.of(1, 3), Axis.of(3, 5))]
    three, less = (
        phases.weights(axis, axis)[:, i, i] for axis, i in zip((Axis.of(1, 3), Axis.of(3, 5)), at, strict=True)
    )
    assert not three[1:].allclose(less[1:])
