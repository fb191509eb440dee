"""Windows: masks, permutations, orders and reflection against definitions of their own."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swinir.models.windows import attn_mask, class_masks, reflect_to_multiple, shifted_windows, to_image, to_windows


def test_mask_parts_exactly_the_pixels_that_only_the_shift_made_neighbours():
    # Independent of the classes: number the nine regions of a shifted 24x24 image and compare them pairwise.
    bands = torch.tensor([0] * 16 + [1] * 4 + [2] * 4)
    regions = bands[:, None] * 3 + bands[None, :]
    windows = to_windows(regions[None, None].float(), 8).reshape(9, 64)
    parted = windows[:, :, None] != windows[:, None, :]
    assert torch.equal(attn_mask(24, 8) != 0, parted)
    assert set(class_masks(8).unique().tolist()) == {-100.0, 0.0}


@given(st.integers(1, 5), st.integers(1, 5), st.sampled_from([2, 4, 7, 8]))
@settings(max_examples=30, deadline=None)
def test_shifted_windows_are_a_permutation_and_its_inverse(rows, cols, window):
    height, width = rows * window, cols * window
    windows = shifted_windows(height, width, window, torch.device("cpu"))
    tokens = torch.arange(height * width)
    assert torch.equal(windows.order[windows.inverse], tokens)
    assert torch.equal(windows.order.sort().values, tokens)
    assert sum(windows.counts) == rows * cols


@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from([1, 2, 7, 8]))
@settings(max_examples=30, deadline=None)
def test_window_order_goes_back_to_the_image(rows, cols, window):
    x = torch.rand(2, 3, rows * window, cols * window)
    assert torch.equal(to_image(to_windows(x, window), window, x.shape[-2:]), x)


@given(st.integers(1, 20), st.integers(1, 20), st.sampled_from([4, 8]))
@settings(max_examples=40, deadline=None)
def test_reflection_is_numpys(height, width, multiple):
    x = torch.rand(1, 1, height, width)
    pad = [(0, -side % multiple) for side in (height, width)]
    expected = np.pad(x[0, 0].numpy(), pad, mode="reflect")
    assert np.array_equal(reflect_to_multiple(x, multiple)[0, 0].numpy(), expected)
