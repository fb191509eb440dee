"""Positions, padding and blending of tiles, against the released rule, NumPy, and accumulators made by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swinir.tiling import mirror_to, run_tiled, tile_boxes, tile_starts


@st.composite
def axes(draw):
    """(size, tile, overlap) that fit together."""
    tile = draw(st.integers(1, 60))
    return draw(st.integers(1, 200)), tile, draw(st.integers(0, tile - 1))


@given(axes())
@settings(max_examples=200)
def test_tiles_cover_the_axis_and_end_flush_with_it(axis):
    size, tile, overlap = axis
    starts = tile_starts(size, tile, overlap)
    covered = {pixel for start in starts for pixel in range(start, min(start + tile, size))}
    assert covered == set(range(size))
    assert starts[0] == 0
    if tile < size:
        assert starts[-1] + tile == size


@given(axes())
@settings(max_examples=200)
def test_tiles_advance_by_the_stride_except_the_last(axis):
    size, tile, overlap = axis
    steps = np.diff(tile_starts(size, tile, overlap))
    assert np.all(steps[:-1] == tile - overlap)
    assert np.all((steps > 0) & (steps <= tile - overlap))


@given(axes())
@settings(max_examples=200)
def test_tiles_stand_where_the_released_program_puts_them(axis):
    size, tile, overlap = axis
    tile = min(tile, size)
    if overlap < tile:
        assert tile_starts(size, tile, overlap) == [*range(0, size - tile, tile - overlap), size - tile]


@pytest.mark.parametrize(("tile", "overlap"), [(24, 32), (24, 24), (24, -1), (1, 1)])
def test_an_overlap_that_leaves_no_stride_is_refused(tile, overlap):
    with pytest.raises(ValueError, match=f"from 0 to below tile, got {overlap} for tile {tile}; try {tile // 8}"):
        tile_starts(100, tile, overlap)
    with pytest.raises(ValueError, match="tile_overlap"):
        run_tiled(lambda x: x, torch.zeros(1, 1, 100, 100), scale=1, tile=tile, overlap=overlap)


def test_boxes_go_row_by_row_and_stay_inside():
    boxes = list(tile_boxes(10, 25, 16, 4))
    assert boxes == [(slice(0, 10), slice(0, 16)), (slice(0, 10), slice(9, 25))]
    boxes = list(tile_boxes(20, 20, 16, 0))
    assert [(rows.start, cols.start) for rows, cols in boxes] == [(0, 0), (0, 4), (4, 0), (4, 4)]


def enlarge(x, scale):
    return x.repeat_interleave(scale, 2).repeat_interleave(scale, 3)


@given(axes(), st.integers(1, 60), st.sampled_from([1, 2, 3]), st.integers(1, 2))
@settings(max_examples=60, deadline=None)
def test_a_function_that_only_enlarges_comes_back_exactly(axis, width, scale, batch):
    height, tile, overlap = axis
    # Whole numbers: sums of equal values divide without error.
    x = torch.randint(0, 1000, (batch, 2, min(height, 60), width)).double()
    result = run_tiled(lambda part: enlarge(part, scale), x, scale=scale, tile=tile, overlap=overlap)
    assert torch.equal(result, enlarge(x, scale))


@given(axes(), st.integers(1, 50), st.sampled_from([1, 2]))
@settings(max_examples=40, deadline=None)
def test_overlapping_tiles_are_averaged_plainly(axis, width, scale):
    height, tile, overlap = axis
    height = min(height, 50)
    x = torch.rand(1, 1, height, width, dtype=torch.float64)

    def depends_on_position(part):
        rows, cols = (torch.arange(n * scale, dtype=torch.float64) for n in part.shape[-2:])
        return enlarge(part, scale) + rows[:, None] * 3 + cols

    total, count = np.zeros((height * scale, width * scale)), np.zeros((height * scale, width * scale))
    tile_h, tile_w = min(tile, height), min(tile, width)
    stride = tile - overlap
    tops = [*range(0, height - tile_h, stride), height - tile_h]
    lefts = [*range(0, width - tile_w, stride), width - tile_w]
    for top in tops:
        for left in lefts:
            part = depends_on_position(x[..., top : top + tile_h, left : left + tile_w])[0, 0].numpy()
            for i in range(part.shape[0]):
                total[top * scale + i, left * scale : left * scale + part.shape[1]] += part[i]
                count[top * scale + i, left * scale : left * scale + part.shape[1]] += 1
    result = run_tiled(depends_on_position, x, scale=scale, tile=tile, overlap=overlap)
    assert np.allclose(result[0, 0].numpy(), total / count, rtol=0, atol=1e-10)


def test_the_function_may_change_the_number_of_channels():
    x = torch.rand(2, 1, 20, 20)
    result = run_tiled(lambda part: part.expand(-1, 3, -1, -1), x, scale=1, tile=8, overlap=4)
    assert result.shape == (2, 3, 20, 20)


def test_progress_counts_every_tile():
    seen = []
    run_tiled(
        lambda part: part, torch.zeros(1, 1, 20, 20), scale=1, tile=8, overlap=0, progress=lambda *s: seen.append(s)
    )
    assert seen == [(i, 9) for i in range(1, 10)]


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 50), st.integers(0, 50))
@settings(max_examples=60, deadline=None)
def test_mirroring_is_numpys_symmetric_padding(height, width, more_rows, more_cols):
    x = torch.rand(2, 3, height, width)
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (0, more_rows), (0, more_cols)), mode="symmetric")
    assert np.array_equal(mirror_to(x, height + more_rows, width + more_cols).numpy(), expected)


def test_an_image_that_is_large_enough_is_not_extended():
    x = torch.rand(1, 1, 9, 9)
    assert torch.equal(mirror_to(x, 9, 5), x)
