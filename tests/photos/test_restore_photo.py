"""A picture through its experts: channels, depth, alpha, exact sizes, and the memory that experts take."""

import numpy as np
import pytest
import torch
from pictures import smooth, write_expert

from swinir.degradations.resize import imresize
from swinir.image_io.picture import Picture
from swinir.inference.restore import restore
from swinir.metrics.full_reference import psnr
from swinir.photos.restore_photo import Experts, Treatment, repair
from swinir.photos.select_models import Wish
from swinir.weights.checkpoint import load_model

CPU = torch.device("cpu")


@pytest.fixture
def experts():
    return Experts(CPU, budget=1e9)


def by_hand(path, pixels):
    """(H, W, C) float32 in [0, 1] through a network whose channels are the picture's."""
    lq = torch.from_numpy(pixels.astype(np.float32) / np.iinfo(pixels.dtype).max).permute(2, 0, 1)[None]
    return restore(load_model(path), lq)[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_goes_through_the_network_and_keeps_its_depth(tmp_path, experts, dtype, channels):
    path = write_expert(tmp_path / "x2.pth", in_chans=channels)
    pixels = smooth(20, 30, channels, dtype)
    repaired = repair(Picture(pixels), Treatment(model=str(path)), experts).picture.pixels
    assert repaired.dtype == dtype
    assert np.array_equal(repaired, (by_hand(path, pixels) * np.iinfo(dtype).max).round().astype(dtype))


def test_a_grey_picture_is_three_equal_channels_to_an_expert_for_colour(tmp_path, experts):
    path = write_expert(tmp_path / "x2.pth")
    gray = smooth(12, 16, 1)
    expected = by_hand(path, np.repeat(gray, 3, axis=2)).mean(2, keepdims=True)
    treatment = Treatment(model=str(path))
    assert np.array_equal(repair(Picture(gray), treatment, experts).picture.pixels, (expected * 255).round())
    thrice = repair(Picture(np.repeat(gray, 3, axis=2)), treatment, experts).picture.pixels
    assert np.array_equal(thrice, np.repeat((expected * 255).round(), 3, axis=2))


def test_colours_go_through_an_expert_for_grey_one_by_one(tmp_path, experts):
    path = write_expert(tmp_path / "x2.pth", in_chans=1)
    pixels = smooth(12, 16)
    expected = np.concatenate([by_hand(path, pixels[..., i : i + 1]) for i in range(3)], axis=2)
    repaired = repair(Picture(pixels), Treatment(model=str(path)), experts).picture.pixels
    assert np.array_equal(repaired, (expected * 255).round())


@pytest.mark.parametrize(("outscale", "passes", "size"), [(1.5, 1, (18, 24)), (2, 1, (24, 32)), (3.7, 2, (44, 59))])
def test_any_scale_is_reached_exactly(tmp_path, experts, outscale, passes, size):
    path = write_expert(tmp_path / "x2.pth")
    repaired = repair(Picture(smooth(12, 16)), Treatment(model=str(path), outscale=outscale), experts)
    assert len(repaired.decision.passes) == passes
    assert repaired.picture.pixels.shape == (*size, 3)


def test_a_size_between_is_the_larger_one_made_smaller_without_aliasing(tmp_path, experts):
    path = write_expert(tmp_path / "x2.pth")
    pixels = smooth(12, 16)
    repaired = repair(Picture(pixels), Treatment(model=str(path), outscale=1.5), experts).picture.pixels
    expected = np.clip(imresize(by_hand(path, pixels), size=(18, 24)), 0, 1)
    assert np.array_equal(repaired, (expected * 255).round())


@pytest.mark.parametrize("way", ["model", "bicubic"])
def test_alpha_is_enlarged_with_the_picture(tmp_path, experts, way):
    path = write_expert(tmp_path / "x2.pth")
    alpha = smooth(12, 16, 1)[..., 0]
    treatment = Treatment(model=str(path), alpha=way)
    repaired = repair(Picture(smooth(12, 16), alpha), treatment, experts).picture
    resized = imresize(alpha / 255.0, size=(24, 32))
    through = by_hand(path, np.repeat(alpha[..., None], 3, axis=2)).mean(2)
    expected = np.clip(resized if way == "bicubic" else through, 0, 1)
    assert np.abs(repaired.alpha - expected * 255).max() <= 0.51


def test_what_is_opaque_stays_opaque(tmp_path, experts):
    path = write_expert(tmp_path / "x2.pth")
    opaque = np.full((12, 16), 65535, np.uint16)
    repaired = repair(Picture(smooth(12, 16, dtype=np.uint16), opaque), Treatment(model=str(path)), experts).picture
    assert repaired.alpha.shape == (24, 32)
    assert (repaired.alpha == 65535).all()


def test_a_clean_picture_is_left_as_it_is(experts):
    picture = Picture(smooth(64, 80, dtype=np.uint16))
    repaired = repair(picture, Treatment(), experts)
    assert repaired.decision.passes == ()
    assert np.array_equal(repaired.picture.pixels, picture.pixels)
    assert len(repaired.decision.findings) == 5


def test_noise_is_found_and_its_bundled_expert_takes_it_away(experts):
    clean = smooth(96, 96)
    noise = np.random.default_rng(0).normal(0, 25, clean.shape)
    noisy = np.clip(clean + noise, 0, 255).round().astype(np.uint8)
    repaired = repair(Picture(noisy), Treatment(), experts)
    assert [step.weights.split("_")[-1] for step in repaired.decision.passes] == ["noise25"]
    assert psnr(repaired.picture.pixels, clean) > psnr(noisy, clean) + 6


def test_enlarging_by_more_than_the_largest_expert_takes_two_passes(experts):
    repaired = repair(Picture(smooth(24, 20)), Treatment(wish=Wish(5.0), outscale=5.0), experts)
    assert len(repaired.decision.passes) == 2
    assert repaired.picture.pixels.shape == (120, 100, 3)


def test_progress_reaches_the_end_over_all_passes(tmp_path, experts):
    path, shares = write_expert(tmp_path / "x2.pth"), []
    treatment = Treatment(model=str(path), outscale=4, tile=16, tile_overlap=4)
    repair(Picture(smooth(24, 20)), treatment, experts, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert any(share < 0.5 for share in shares)


def test_the_expert_used_longest_ago_leaves_first():
    loaded = []

    def load(name, device):
        loaded.append(name)
        return torch.nn.Linear(10, 100)  # 4,400 bytes, two and a half times

    experts = Experts(CPU, budget=25_000, load=load)
    for name in ("a", "b", "a", "c", "a", "b"):
        experts.get(name)
    assert loaded == ["a", "b", "c", "b"]


def test_one_expert_stays_however_small_the_budget():
    experts = Experts(CPU, budget=0, load=lambda name, device: torch.nn.Linear(2, 2))
    assert experts.get("a") is experts.get("a")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outscale": 0.0}, "outscale must be positive, got 0.0"),
        ({"alpha": "nearest"}, "model or bicubic, got 'nearest'"),
    ],
)
def test_a_treatment_that_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Treatment(**options)


def test_a_result_that_is_not_finite_is_refused(tmp_path):
    path = write_expert(tmp_path / "x2.pth")
    model = load_model(path)
    with torch.no_grad():
        model.conv_first.weight.fill_(float("nan"))
    experts = Experts(CPU, budget=1e9, load=lambda name, device: model)
    with pytest.raises(ValueError, match="NaN or infinite"):
        repair(Picture(smooth(12, 16)), Treatment(model="x"), experts)
