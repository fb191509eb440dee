"""Positions, padding and blending of tiles, against the released rule, NumPy, and accumulators made by hand."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from swinir.inference.tiling import TooLargeError, align_overlap, cut_spans, mirrored, run_cut, run_mean, tile_starts


@st.composite
def axes(draw):
    """(size, tile, overlap) that fit together."""
    tile = draw(st.integers(1, 60))
    return draw(st.integers(1, 200)), tile, draw(st.integers(0, tile - 1))


@st.composite
def window_axes(draw):
    """(size, tile, overlap, window) that fit together, sizes and tiles multiples of the window."""
    window = draw(st.sampled_from([1, 2, 7, 8]))
    tile = draw(st.integers(1, 20))
    return window * draw(st.integers(1, 60)), window * tile, draw(st.integers(0, window * (tile - 1))), window


def enlarge(x, scale):
    return x.repeat_interleave(scale, 2).repeat_interleave(scale, 3)


def cut(function, x, *, scale=1, window=8, size=None, **options):
    """The output of cut tiles of an image, which is mirrored to a size."""
    canvas = torch.full((*x.shape[:2], x.shape[2] * scale, x.shape[3] * scale), torch.nan, dtype=x.dtype)
    run_cut(function, x, canvas, size=size or x.shape[-2:], scale=scale, window=window, **options)
    return canvas


def mean(function, x, *, scale=1, **options):
    """The output of averaged tiles of an image."""
    canvas, total = torch.full((2, *x.shape[:2], x.shape[2] * scale, x.shape[3] * scale), torch.nan, dtype=x.dtype)
    run_mean(function, x, canvas, total, size=x.shape[-2:], scale=scale, **options)
    return canvas


@given(axes())
@settings(max_examples=200)
def test_tiles_stand_where_the_released_program_puts_them(axis):
    size, tile, overlap = axis
    starts = tile_starts(size, tile, overlap)
    if tile < size:
        assert starts == [*range(0, size - tile, tile - overlap), size - tile]
    else:
        assert starts == [0]
    assert {pixel for start in starts for pixel in range(start, min(start + tile, size))} == set(range(size))


@pytest.mark.parametrize(("tile", "overlap"), [(24, 32), (24, 24), (24, -1), (1, 1)])
def test_an_overlap_without_a_stride_is_refused(tile, overlap):
    with pytest.raises(ValueError, match=f"from 0 to below tile, got {overlap} for tile {tile}; try {tile // 8}"):
        tile_starts(100, tile, overlap)


@given(axes(), st.integers(1, 50), st.sampled_from([1, 2, 3]), st.integers(1, 2))
@settings(max_examples=60)
def test_overlapping_tiles_are_averaged_plainly(axis, width, scale, batch):
    height, tile, overlap = axis
    height = min(height, 50)
    x = torch.rand(batch, 1, height, width, dtype=torch.float64)

    def depends_on_position(part):
        rows, cols = (torch.arange(n * scale, dtype=torch.float64) for n in part.shape[-2:])
        return enlarge(part, scale) + rows[:, None] * 3 + cols

    total, count = (np.zeros((batch, 1, height * scale, width * scale)) for _ in range(2))
    tile_h, tile_w = min(tile, height), min(tile, width)
    stride = tile - overlap
    for top in [*range(0, height - tile_h, stride), height - tile_h]:
        for left in [*range(0, width - tile_w, stride), width - tile_w]:
            part = depends_on_position(x[..., top : top + tile_h, left : left + tile_w]).numpy()
            box = (..., slice(top * scale, (top + tile_h) * scale), slice(left * scale, (left + tile_w) * scale))
            total[box] += part
            count[box] += 1
    result = mean(depends_on_position, x, scale=scale, tile=tile, overlap=overlap)
    assert np.allclose(result.numpy(), total / count, rtol=0, atol=1e-10)


@given(*[st.integers(1, 20)] * 2, *[st.integers(0, 50)] * 2, st.data())
@settings(max_examples=100)
def test_mirroring_is_numpys_symmetric_padding_of_any_region(height, width, more_rows, more_cols, data):
    x = torch.rand(2, 3, height, width)
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (0, more_rows), (0, more_cols)), mode="symmetric")
    rows, cols = (
        slice(start := data.draw(st.integers(0, side - 1)), data.draw(st.integers(start + 1, side)))
        for side in expected.shape[-2:]
    )
    assert np.array_equal(mirrored(x, rows, cols).numpy(), expected[..., rows, cols])


@given(window_axes())
@settings(max_examples=300)
def test_kept_parts_follow_one_another_without_gap_or_overlap(axis):
    spans = cut_spans(*axis)
    assert [pixel for _, kept in spans for pixel in range(kept.start, kept.stop)] == list(range(axis[0]))
    assert all(kept.start < kept.stop for _, kept in spans)


@given(window_axes())
@settings(max_examples=300)
def test_cut_tiles_are_whole_windows_of_the_image(axis):
    size, tile, _, window = axis
    spans = cut_spans(*axis)
    for seen, _ in spans:
        assert seen.start % window == (seen.stop - seen.start) % window == 0
        assert 0 <= seen.start < seen.stop <= size
    assert len({seen.stop - seen.start for seen, _ in spans}) == 1
    assert spans[0][0].stop <= tile


@given(window_axes())
@settings(max_examples=300)
def test_cut_tiles_are_no_larger_than_their_number_needs(axis):
    size, _, overlap, window = axis
    spans = cut_spans(*axis)
    smaller = spans[0][0].stop - window
    assert len(spans) * smaller < size + (len(spans) - 1) * -(-overlap // window) * window


@given(window_axes())
@settings(max_examples=300)
@example((21, 14, 7, 7))  # an odd overlap: 3 pixels on one side of the seam, 4 on the other
def test_what_is_kept_lies_half_an_overlap_from_every_inner_side(axis):
    size, _, overlap, window = axis
    least = -(-overlap // window) * window // 2
    spans = cut_spans(*axis)
    for seen, kept in spans:
        assert kept.start - seen.start >= (least if seen.start > 0 else 0)
        assert seen.stop - kept.stop >= (least if seen.stop < size else 0)
    for (left, _), (right, kept) in pairwise(spans):
        before, after = left.stop - kept.start, kept.start - right.start
        assert before - after in (0, 1)


@given(window_axes())
@settings(max_examples=300)
def test_cutting_takes_no_more_tiles_than_the_stride_does_and_spreads_them_evenly(axis):
    size, tile, overlap, window = axis
    starts = [seen.start for seen, _ in cut_spans(*axis)]
    assert len(starts) == len(tile_starts(size, tile, -(-overlap // window) * window))
    steps = np.diff(starts)
    assert len(steps) == 0 or steps.max() - steps.min() <= window


@pytest.mark.parametrize(
    ("overlap", "tile", "window", "expected"), [(0, 8, 8, 0), (1, 16, 8, 8), (32, 64, 8, 32), (32, 126, 7, 35)]
)
def test_an_overlap_is_rounded_up_to_the_window(overlap, tile, window, expected):
    assert align_overlap(overlap, tile, window) == expected


@pytest.mark.parametrize(
    ("overlap", "tile", "window", "most", "advice"),
    [(32, 32, 8, 24, 8), (25, 32, 8, 24, 8), (-1, 32, 8, 24, 8), (1, 8, 8, 0, 0), (32, 35, 7, 28, 7)],
)
def test_an_overlap_that_leaves_no_window_of_stride_is_refused(overlap, tile, window, most, advice):
    message = f"from 0 to {most} for tile {tile} in windows of {window}, got {overlap}; try --tile_overlap {advice}$"
    with pytest.raises(ValueError, match=message):
        align_overlap(overlap, tile, window)
    x = torch.zeros(1, 1, window, 2 * tile)
    with pytest.raises(ValueError, match=message):
        cut(lambda part: part, x, tile=tile, overlap=overlap, window=window)


def reaching(radius, window, scale):
    """A network's stand-in: each pixel depends on its place in its window and on all pixels up to `radius` away."""
    weight = torch.randint(-9, 10, (1, 1, 2 * radius + 1, 2 * radius + 1)).double()  # whole numbers add exactly
    place = torch.arange(window**2).view(window, window).double()

    def function(x):
        places = place.tile(x.shape[-2] // window, x.shape[-1] // window)
        return enlarge(F.conv2d(x + places, weight, padding=radius) * (1 + places), scale)

    return function


@given(window_axes(), st.integers(1, 9), st.sampled_from([1, 2, 3]), st.data())
@settings(max_examples=60)
def test_tiles_equal_the_whole_image_when_the_margin_covers_the_reach(axis, columns, scale, data):
    size, tile, overlap, window = axis
    radius = data.draw(st.integers(0, min(-(-overlap // window) * window // 2, 6)))
    function = reaching(radius, window, scale)
    padded = min(size, 16 * window), columns * window
    height, width = (data.draw(st.integers(max(1, side - window), side)) for side in padded)
    x = torch.randint(0, 256, (2, 1, height, width)).double()
    result = cut(function, x, scale=scale, size=padded, tile=tile, overlap=overlap, window=window)
    whole = function(mirrored(x, *(slice(0, side) for side in padded)))
    assert torch.equal(result, whole[..., : height * scale, : width * scale])


@given(window_axes(), st.sampled_from([1, 2]), st.integers(1, 4), st.data())
@settings(max_examples=60)
def test_tiles_that_do_not_fit_are_divided_and_the_image_is_the_same(axis, scale, batch, data):
    size, tile, overlap, window = axis
    size = min(size, 16 * window)
    margin = -(-overlap // window) * window // 2
    radius = data.draw(st.integers(0, min(margin, 6)))
    function = reaching(radius, window, scale)
    x = torch.randint(0, 256, (2, 1, size, data.draw(st.integers(1, 9)) * window)).double()
    smallest = 2 * margin + 3 * window  # a tile of this side can be kept to without being halved further
    room = data.draw(st.integers(smallest**2, max(smallest**2, tile**2) * 2)) * len(x)
    calls = []

    def limited(part):
        pixels = part.shape[0] * part.shape[2] * part.shape[3]
        if pixels > room:
            raise TooLargeError
        calls.append(pixels)
        return function(part)

    done = []
    options = {"scale": scale, "tile": tile, "overlap": overlap, "window": window, "batch": batch}
    result = cut(limited, x, progress=lambda *s: done.append(s), **options)
    assert torch.equal(result, function(x))
    assert done[-1][0] == done[-1][1] >= len(calls)


def test_finished_tiles_are_not_done_again_after_one_did_not_fit():
    x = torch.arange(16.0 * 64).view(1, 1, 16, 64)
    seen, refusals = [], iter([False, True])

    def function(part):
        if next(refusals, False):
            raise TooLargeError
        seen.append(part[0, 0, 0, 0].item())
        return part

    assert torch.equal(cut(function, x, tile=16, overlap=0, window=4), x)
    assert seen[0] == 0
    assert seen.count(0) == 1
    assert len(seen) == 7  # one whole, three in two parts each


def test_the_smallest_tiles_are_tried_before_giving_up():
    sizes = []

    def function(part):
        sizes.append(part.shape[-2:].numel())
        raise TooLargeError

    with pytest.raises(TooLargeError):
        cut(function, torch.zeros(1, 1, 64, 64), tile=64, overlap=16, window=8)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] <= 32**2


def test_tiles_of_one_size_are_run_together():
    batches = []

    def function(part):
        batches.append(len(part))
        return part

    x = torch.rand(2, 1, 24, 40)
    assert torch.equal(cut(function, x, tile=8, overlap=0, window=8, batch=4), x)
    assert batches == [8, 8, 8, 6]
    batches.clear()
    cut(function, x[:1, :, :, :24], tile=8, overlap=0, window=8, batch=4)
    assert batches == [3, 3, 3]  # of one size, since a GPU records each


def test_a_reach_beyond_the_margin_shows_at_the_seams_alone():
    function = reaching(5, 8, 1)
    x = torch.randint(0, 256, (1, 1, 8, 56)).double()  # two tiles of 32 that share columns 24 to 31: the seam is at 28
    difference = cut(function, x, tile=32, overlap=8, window=8) != function(x)
    assert difference.any(dim=2).squeeze().nonzero().flatten().tolist() == [27, 28]


def test_progress_counts_every_cut_tile():
    seen = []
    x = torch.zeros(1, 1, 24, 16)
    cut(lambda part: part, x, tile=8, overlap=0, window=8, progress=lambda *s: seen.append(s))
    assert seen == [(i, 6) for i in range(1, 7)]
