"""Regions of turned images, against NumPy's turning of the whole."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from swinir.inference.self_ensemble import TURNS, TurnedImage, TurnedTotal


def turned(array, turn):
    array = np.rot90(array, turn % 4, (-2, -1))
    return array[..., ::-1] if turn >= 4 else array


@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_regions_are_those_of_the_turned_whole(height, width, data):
    x = torch.rand(2, 3, height, width)
    for turn in TURNS:
        expected, image = turned(x.numpy(), turn), TurnedImage(x, turn)
        assert tuple(image.shape) == expected.shape
        rows, cols = (
            slice(start := data.draw(st.integers(0, side - 1)), data.draw(st.integers(start + 1, side)))
            for side in expected.shape[-2:]
        )
        assert np.array_equal(image[..., rows, cols].numpy(), expected[..., rows, cols])


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_turned_parts_are_turned_back_and_added_up(height, width, step):
    parts = [torch.rand(1, 2, *turned(np.zeros((height, width)), turn).shape) for turn in TURNS]
    total = torch.full((1, 2, height, width), torch.nan)
    for turn, part in enumerate(parts):
        canvas = TurnedTotal(total, turn)
        for top in range(0, part.shape[2], step):
            rows, cols = slice(top, min(top + step, part.shape[2])), slice(0, part.shape[3])
            canvas[..., rows, cols] = part[..., rows, cols]
    backwards = {**{turn: -turn % 4 for turn in range(4)}, **{turn: turn for turn in range(4, 8)}}
    expected = sum(turned(part.numpy(), backwards[turn]) for turn, part in enumerate(parts))
    assert np.allclose(total.numpy(), expected, rtol=0, atol=1e-5)
