"""Figures made of images: which detail is shown, and what stands where."""

import numpy as np
import pytest
from pictures import smooth

from swinir.bench.compare_networks import Seen
from swinir.report.figures import CELL, INPUT, TRUTH, comparison_sheet, exhibit, most_different, side_by_side

GT = smooth(160, 200)


def raised(top, left, levels):
    """GT with a square of 40 pixels raised by some levels."""
    image = GT.astype(int)
    image[top : top + 40, left : left + 40] += levels
    return image.clip(0, 255).astype(np.uint8)


def seen(**options):
    metrics = {"a": {"psnr": 30.126, "psnr_y": 32.5}, "b": {"psnr": float("inf"), "psnr_y": float("inf")}}
    values = {"image": "street", "lq": GT[::2, ::2], "gt": GT, "restored": {"a": raised(40, 120, 60), "b": GT}}
    return Seen(**values | {"metrics": metrics} | options)


def test_panels_stand_side_by_side_with_their_details_below():
    left, right = np.zeros((20, 30, 3), np.uint8), np.full((20, 30, 1), 200, np.uint8)
    page = side_by_side([("a", left), ("b", right)], detail=(5, 10, 8), zoom=4)
    below = page[-8 - 32 : -8]
    assert (below[:, 8 : 8 + 32] == 0).all()
    assert (below[:, 8 + 32 + 8 : -8] == 200).all()
    with pytest.raises(ValueError, match="of one size"):
        side_by_side([("a", left), ("b", right[1:])])


def test_the_detail_is_where_networks_differ():
    left, top, side = most_different([raised(40, 120, 60), GT])
    assert side == 40
    assert (abs(left - 120), abs(top - 40)) <= (2, 2)
    left, top, _ = most_different([raised(100, 20, 50)], GT)  # one network is compared with the truth
    assert (abs(left - 20), abs(top - 100)) <= (2, 2)
    assert most_different([GT[:20, :24], GT[:20, :24]])[2] == 20


def test_a_network_that_is_wrong_everywhere_does_not_choose_the_detail():
    left, top, _ = most_different([raised(40, 120, 25), GT, 255 * (GT < 128).astype(np.uint8)])
    assert abs(left - 120) < 40
    assert abs(top - 40) < 40


def test_details_are_those_of_the_images_enlarged():
    shown = exhibit(seen(), crop=(60, 20, 40))
    factor = CELL // 40
    for name, image in (("a", seen().restored["a"]), (TRUTH, GT), (INPUT, GT[::2, ::2].repeat(2, 0).repeat(2, 1))):
        expected = image[20:60, 60:100].repeat(factor, axis=0).repeat(factor, axis=1)
        assert np.array_equal(shown.details[name], expected)
    factor = shown.whole.shape[0] / 160
    yellow = np.argwhere((shown.whole == (255, 220, 0)).all(axis=2))  # the frame in the whole image
    assert yellow.min(axis=0) == pytest.approx(np.array([20, 60]) * factor, abs=2)
    assert yellow.max(axis=0) == pytest.approx(np.array([60, 100]) * factor, abs=2)
    for side in (37, 160):
        assert {d.shape for d in exhibit(seen(), crop=(0, 0, side)).details.values()} == {(CELL, CELL, 3)}


@pytest.mark.parametrize("crop", [(180, 0, 40), (0, 130, 40), (0, 0, 161)])
def test_a_crop_outside_the_image_is_refused(crop):
    with pytest.raises(ValueError, match=r"does not lie in street of 200x160 pixels"):
        exhibit(seen(), crop=crop)


def test_captions_are_psnr_on_luma_for_super_resolution_and_over_all_channels_otherwise():
    assert exhibit(seen()).captions == {"a": "32.50 dB", "b": "inf dB", TRUTH: "PSNR Y"}
    assert exhibit(seen(lq=GT)).captions["a"] == "30.13 dB"
    values = {name: {"niqe": 4.567} for name in "ab"}
    assert exhibit(seen(metrics=values, gt=None)).captions["b"] == "NIQE 4.57"


def test_columns_stand_in_the_order_of_the_table_and_rows_in_that_of_images():
    first, second = exhibit(seen(), crop=(60, 20, 40)), exhibit(seen(gt=None), crop=(0, 0, 40))
    picture = comparison_sheet([first, second], ["b", "a"])
    columns = [first.details[name] for name in (INPUT, "b", "a", TRUTH)]
    y = next(y for y in range(60) if np.array_equal(picture[y : y + CELL, -CELL - 8 : -8], columns[-1]))
    for i, detail in enumerate(columns):
        left = first.whole.shape[1] + 16 + i * (CELL + 8)
        assert np.array_equal(picture[y : y + CELL, left : left + CELL], detail)
    below = picture[y + CELL :]
    assert any(np.array_equal(below[i : i + CELL, left - CELL - 8 : left - 8], second.details["a"]) for i in range(60))
    assert (below[60 : 60 + CELL - 40, left : left + CELL] == 255).all()  # the second image has no truth
    without_b = comparison_sheet([first, second], ["a"])
    assert picture.shape[1] - without_b.shape[1] == CELL + 8
    with pytest.raises(ValueError, match="no image to show"):
        comparison_sheet([], ["a"])


def test_an_input_that_is_a_network_of_the_table_is_shown_once_and_chooses_no_detail():
    a = raised(100, 20, 50)
    noisy = (GT + np.random.default_rng(0).normal(0, 25, GT.shape)).clip(0, 255).astype(np.uint8)
    both = {name: {"psnr": 1.0} for name in ("input", "a")}
    shown = exhibit(seen(lq=noisy, restored={"input": noisy, "a": a}, metrics=both))
    left, top, side = most_different([a], GT)
    assert np.array_equal(shown.details["a"][:: CELL // side, :: CELL // side], a[top : top + side, left : left + side])
    wide = comparison_sheet([exhibit(seen(lq=noisy, restored={"b": noisy, "a": a}))], ["b", "a"])
    assert comparison_sheet([shown], ["input", "a"]).shape[1] == wide.shape[1] - CELL - 8


def test_long_names_stay_in_their_column():
    name = "001_classicalSR_DF2K_s64w8_SwinIR-M_x4" * 2
    shown = exhibit(seen(restored={name: GT, "b": GT}, metrics={name: {"psnr": 1.0}}))
    head = comparison_sheet([shown], [name, "b"])[: 8 + 24]
    left = shown.whole.shape[1] + 16 + CELL + 8
    assert (head[:, left - 8 : left] == 255).all()
    assert (head[:, left + CELL : left + CELL + 8] == 255).all()
    assert (head[:, left : left + CELL] < 128).any()
