"""Diagnosis of pairs: a planted fault is the fault that is found."""

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from photographs import photographs
from PIL import Image

from swinir.degradations.resize import imresize
from swinir.image_io.image import read
from swinir.testsets.diagnose import TURNS, describe, diagnose
from swinir.testsets.pairs import reduced, rounded_once

PHOTO = photographs(156, 216)["chelsea"]  # sides are multiples of 2, 3 and 4
MATLAB = ("MATLAB's bicubic",)


def by_torch(image, scale):
    batch = torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32))[None]
    small = F.interpolate(batch, scale_factor=1 / scale, align_corners=False, mode="bicubic")
    return small[0].round().clip(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()


def by_opencv(method):
    return lambda image, s: cv2.resize(image, (image.shape[1] // s, image.shape[0] // s), interpolation=method)


def by_pillow(method):
    return lambda image, s: np.asarray(
        Image.fromarray(image).resize((image.shape[1] // s, image.shape[0] // s), method)
    )


def by_means(image, scale):
    return image.reshape(image.shape[0] // scale, scale, -1, scale, 3).mean((1, 3)).round().astype(np.uint8)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_the_published_files_of_set5_are_exact(public_folder, scale):
    folder = public_folder("testsets/Set5")
    for path in sorted((folder / "HR").iterdir()):
        lq = read(folder / f"LR_bicubic/X{scale}/{path.stem}x{scale}.png")
        assert diagnose(read(path), lq, scale).exact, path.name


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (by_opencv(cv2.INTER_CUBIC), "OpenCV's (or PyTorch's) bicubic"),
        (by_torch, "OpenCV's (or PyTorch's) bicubic"),
        (by_opencv(cv2.INTER_LANCZOS4), "OpenCV's Lanczos"),
        (by_opencv(cv2.INTER_NEAREST), "every n-th pixel (OpenCV's nearest)"),
        (by_means, "means of squares"),
        (by_pillow(Image.Resampling.BICUBIC), "Pillow's bicubic"),
        (by_pillow(Image.Resampling.LANCZOS), "Pillow's Lanczos"),
        (by_pillow(Image.Resampling.BILINEAR), "Pillow's bilinear"),
    ],
)
def test_another_way_of_reducing_is_named(make, name, scale):
    found = diagnose(PHOTO, make(PHOTO, scale), scale)
    assert any(maker.startswith(name) for maker in found.made_by), found
    assert (found.turn, found.order, found.shift) == ("", "", (0, 0))
    assert not found.rounding_only
    assert f"by {found.made_by[0]}" in describe(found)


def test_without_antialiasing_three_kernels_are_one_at_an_odd_scale():
    found = diagnose(PHOTO, PHOTO[1::3, 1::3], 3)
    opencv = {"OpenCV's (or PyTorch's) bicubic", "OpenCV's (or PyTorch's) bilinear", "OpenCV's Lanczos"}
    assert {name.split(",")[0] for name in found.made_by} >= opencv


@settings(max_examples=12, deadline=None)
@given(st.sampled_from([2, 3, 4]), st.integers(-6, 6), st.integers(-6, 6))
def test_a_shift_is_found_to_the_pixel(scale, right, down):
    found = diagnose(PHOTO, reduced(np.roll(PHOTO, (down, right), (0, 1)), scale), scale)
    assert found.shift == (right, down)
    assert found.exact or found.made_by == MATLAB


def test_a_low_quality_image_of_a_cropped_ground_truth_is_shifted():
    found = diagnose(PHOTO, reduced(PHOTO[1:-1, 3:-1], 2), 2)
    assert (found.shift, found.made_by) == ((-3, -1), MATLAB)


def test_shift_swapped_channels_and_another_kernel_are_found_together():
    moved = np.ascontiguousarray(np.roll(PHOTO, (0, 2), (0, 1))[..., ::-1])
    found = diagnose(PHOTO, by_pillow(Image.Resampling.BILINEAR)(moved, 2), 2)
    assert (found.order, found.shift, found.made_by) == ("BGR", (2, 0), ("Pillow's bilinear",))
    assert "BGR" in describe(found)
    assert "shifted by 2 to the right" in describe(found)


@pytest.mark.parametrize("order", ["BGR", "GRB", "BRG"])
def test_the_order_of_swapped_channels_is_found(order):
    lq = reduced(PHOTO, 2)[..., ["RGB".index(c) for c in order]]
    assert diagnose(PHOTO, lq, 2).order == order


@pytest.mark.parametrize("turn", TURNS)
def test_a_turn_is_found(turn):
    square = PHOTO[:144, :144]
    found = diagnose(square, TURNS[turn](reduced(square, 2)), 2)
    assert (found.turn, found.made_by) == (turn, MATLAB)


def test_small_differences_are_told_apart_from_another_kernel():
    found = diagnose(PHOTO, rounded_once(PHOTO, 2), 2)
    assert (found.rounding_only, found.exact) == (True, False)
    assert diagnose(PHOTO, imresize(PHOTO[:152], 1 / 8), 8).rounding_only
    lq = reduced(PHOTO, 2)
    lq[5, 7, 1] += 9
    found = diagnose(PHOTO, lq, 2)
    assert (found.exact, found.levels, found.rounding_only) == (False, 9, False)
    assert found.share == pytest.approx(1 / lq.size)


def test_other_scenes_unknown_methods_and_wrong_sizes_are_stated():
    other = photographs(156, 216)["coffee"]
    assert "another scene" in describe(diagnose(PHOTO, reduced(other, 2), 2))
    found = diagnose(PHOTO, cv2.GaussianBlur(reduced(PHOTO, 2), (5, 5), 1.5), 2)
    assert found.made_by == ()
    assert "nor by any other known method" in describe(found)
    with pytest.raises(ValueError, match="does not fit a ground truth"):
        diagnose(PHOTO, PHOTO, 2)


sides = st.integers(1, 14)


@settings(max_examples=60, deadline=None)
@given(sides, sides, st.sampled_from([2, 3, 4, 8]), st.sampled_from([1, 3]), st.integers(0, 2**32 - 1))
def test_small_and_random_pairs_are_diagnosed_without_an_error(height, width, scale, channels, seed):
    rng = np.random.default_rng(seed)
    gt = rng.integers(0, 256, (height * scale, width * scale, channels), dtype=np.uint8)
    flat = np.full((height, width, channels), 9, np.uint8)
    for lq in (rng.integers(0, 256, (height, width, channels), dtype=np.uint8), flat):
        assert describe(diagnose(gt, lq, scale))
