"""Rows that come in blocks of any height and are taken in others."""

import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swinir.image_io.spans import in_spans


@st.composite
def cuts(draw):
    """Heights of blocks, and spans whose starts and ends do not decrease."""
    heights = draw(st.lists(st.integers(1, 9), min_size=1, max_size=12))
    total = sum(heights)
    starts = sorted(draw(st.lists(st.integers(0, total - 1), min_size=1, max_size=8)))
    stops, least = [], 0
    for start in starts:
        least = max(least, start + 1)
        least = draw(st.integers(least, total))
        stops.append(least)
    return heights, [slice(*pair) for pair in zip(starts, stops, strict=True)]


@given(cuts(), st.sampled_from([0, 2]))
@settings(max_examples=200, deadline=None)
def test_spans_are_those_of_the_whole(case, axis):
    heights, spans = case
    whole = np.random.default_rng(0).integers(0, 256, (1, 3, sum(heights), 4) if axis else (sum(heights), 4))
    blocks = np.split(whole, np.cumsum(heights)[:-1], axis=axis)
    taken = list(in_spans(blocks, spans, np.concatenate, axis=axis))
    tensors = list(in_spans(map(torch.from_numpy, blocks), spans, torch.cat, axis=axis))
    assert len(taken) == len(tensors) == len(spans)
    for span, array, tensor in zip(spans, taken, tensors, strict=True):
        expected = whole[:, :, span] if axis else whole[span]
        assert np.array_equal(array, expected)
        assert np.array_equal(tensor.numpy(), expected)


def test_rows_that_are_missing_are_told():
    with pytest.raises(ValueError, match="the image has 5 rows, and row 7 is needed"):
        list(in_spans([np.zeros((5, 2))], [slice(0, 4), slice(3, 8)], np.concatenate))


def test_a_block_is_gone_before_the_next_is_made():
    made = []

    def blocks():
        for _ in range(6):
            assert not any(block() is not None for block in made)
            block = np.zeros((10, 3))
            made.append(weakref.ref(block))
            yield block
            del block

    assert sum(map(np.size, in_spans(blocks(), [slice(y, y + 7) for y in range(0, 50, 7)], np.concatenate))) == 8 * 21
    assert len(made) == 6
