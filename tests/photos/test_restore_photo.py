"""One photograph through its models: channels, depth, alpha, exact sizes, and images larger than memory."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from estimates import photograph
from pictures import smooth, write_expert

import swinir.image_io.canvas
import swinir.photos.restore_photo
from swinir.degradations.resize import imresize
from swinir.image_io.canvas import Workspace
from swinir.image_io.picture import Picture
from swinir.inference.options import RunOptions
from swinir.inference.restore import restore
from swinir.metrics.full_reference import psnr
from swinir.models.any_scale import at_scale
from swinir.photos.loaded_models import LoadedModels, load_by
from swinir.photos.restore_photo import Decision, Step, Treatment, bytes_needed, decide, restore_photo
from swinir.photos.select_models import Wish
from swinir.weights.checkpoint import load_model

CPU = torch.device("cpu")
SCRIPT = Path(__file__).parents[2] / "scripts" / "measure_large.py"


@pytest.fixture
def models():
    return LoadedModels(CPU, budget=1e9)


@pytest.fixture
def repair(models, tmp_path):
    """A function that restores an image by a treatment, in memory or not."""

    def run(picture, treatment, memory_limit=1e9, **options):
        decision = decide(picture, treatment, models)
        return restore_photo(picture, decision, treatment, models, Workspace(tmp_path, memory_limit), **options)

    return run


def by_hand(path, pixels):
    """(H, W, C) float32 in [0, 1] through a network whose channels are those of the image."""
    lq = torch.from_numpy(pixels.astype(np.float32) / np.iinfo(pixels.dtype).max).permute(2, 0, 1)[None]
    return restore(load_model(path), lq)[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_goes_through_the_network_and_keeps_its_depth(tmp_path, repair, dtype, channels):
    path = write_expert(tmp_path / "x2.pth", in_chans=channels)
    pixels = smooth(20, 30, channels, dtype)
    restored = repair(Picture(pixels), Treatment(model=str(path))).pixels
    assert restored.dtype == dtype
    assert np.array_equal(restored, (by_hand(path, pixels) * np.iinfo(dtype).max).round().astype(dtype))


def test_a_grey_image_is_three_equal_channels_to_a_model_for_colour(tmp_path, repair):
    path = write_expert(tmp_path / "x2.pth")
    gray = smooth(12, 16, 1)
    expected = (by_hand(path, np.repeat(gray, 3, axis=2)).mean(2, keepdims=True) * 255).round()
    treatment = Treatment(model=str(path))
    assert np.array_equal(repair(Picture(gray), treatment).pixels, expected)
    thrice = repair(Picture(np.repeat(gray, 3, axis=2)), treatment).pixels
    assert np.array_equal(thrice, np.repeat(expected, 3, axis=2))


def test_colours_go_through_a_model_for_grey_one_by_one(tmp_path, repair):
    path = write_expert(tmp_path / "x2.pth", in_chans=1)
    pixels = smooth(12, 16)
    expected = np.concatenate([by_hand(path, pixels[..., i : i + 1]) for i in range(3)], axis=2)
    assert np.array_equal(repair(Picture(pixels), Treatment(model=str(path))).pixels, (expected * 255).round())


@pytest.mark.parametrize(("outscale", "passes", "size"), [(1.5, 1, (18, 24)), (2, 1, (24, 32)), (3.7, 2, (44, 59))])
def test_any_scale_is_reached_exactly_without_aliasing(tmp_path, models, repair, outscale, passes, size):
    path = write_expert(tmp_path / "x2.pth")
    picture, treatment = Picture(smooth(12, 16)), Treatment(model=str(path), outscale=outscale)
    assert len(decide(picture, treatment, models).models) == passes
    restored = repair(picture, treatment).pixels
    assert restored.shape == (*size, 3)
    if passes == 1:
        expected = np.clip(imresize(by_hand(path, picture.pixels), size=size), 0, 1)
        assert np.array_equal(restored, (expected * 255).round())


@pytest.mark.parametrize("way", ["model", "bicubic"])
def test_alpha_is_enlarged_with_the_image(tmp_path, repair, way):
    path = write_expert(tmp_path / "x2.pth")
    alpha = smooth(12, 16, 1)[..., 0]
    restored = repair(Picture(smooth(12, 16), alpha), Treatment(model=str(path), alpha=way))
    resized = imresize(alpha / 255.0, size=(24, 32))
    through = by_hand(path, np.repeat(alpha[..., None], 3, axis=2)).mean(2)
    expected = np.clip(resized if way == "bicubic" else through, 0, 1)
    assert np.abs(restored.alpha - expected * 255).max() <= 0.51


def test_an_opaque_image_stays_opaque(tmp_path, repair):
    path = write_expert(tmp_path / "x2.pth")
    opaque = np.full((12, 16), 65535, np.uint16)
    restored = repair(Picture(smooth(12, 16, dtype=np.uint16), opaque), Treatment(model=str(path)))
    assert restored.alpha.shape == (24, 32)
    assert (restored.alpha == 65535).all()


def test_a_clean_image_is_left_as_it_is(models, repair):
    picture = Picture(smooth(64, 80, dtype=np.uint16))
    decision = decide(picture, Treatment(), models)
    assert decision.models == ()
    assert len(decision.findings) == 5
    assert np.array_equal(repair(picture, Treatment()).pixels, picture.pixels)


def test_noise_is_found_and_its_bundled_model_removes_it(models, repair):
    clean = photograph("astronaut")[:128, :128]
    noise = np.random.default_rng(0).normal(0, 25, clean.shape)
    noisy = np.clip(clean + noise, 0, 255).round().astype(np.uint8)
    decision = decide(Picture(noisy), Treatment(), models)
    assert [name.split("_")[1] for name in decision.models] == ["colorDN"]
    assert psnr(repair(Picture(noisy), Treatment()).pixels, clean) > psnr(noisy, clean) + 6


def test_enlarging_by_more_than_the_largest_model_takes_two_passes(models):
    decision = decide(Picture(smooth(24, 20)), Treatment(wish=Wish(5.0), outscale=5.0), models)
    assert len(decision.models) == 2
    assert decision.size == (120, 100)


def test_progress_reaches_the_end_over_all_passes(tmp_path, repair):
    path, shares = write_expert(tmp_path / "x2.pth"), []
    treatment = Treatment(model=str(path), outscale=4, run=RunOptions(tile=16, tile_overlap=4))
    repair(Picture(smooth(24, 20)), treatment, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert any(share < 0.5 for share in shares)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outscale": 0.0}, "scale must be above 0 and at most 64, got 0"),
        ({"alpha": "nearest"}, "model or bicubic, got 'nearest'"),
        ({"strength": 1.01}, "strength must be from 0 to 1, got 1.01"),
        ({"strength": float("nan")}, "strength must be from 0 to 1, got nan"),
        ({"model": "x.pth", "wish": Wish(noise=25)}, "leave task, noise and jpeg out"),
    ],
)
def test_an_impossible_treatment_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Treatment(**options)


def test_an_output_that_is_not_finite_is_refused(tmp_path):
    model = load_model(write_expert(tmp_path / "x2.pth"))
    with torch.no_grad():
        model.conv_first.weight.fill_(float("nan"))
    models, picture = LoadedModels(CPU, budget=1e9, load=lambda name, device: model), Picture(smooth(12, 16))
    decision = decide(picture, Treatment(model="x"), models)
    with pytest.raises(ValueError, match="NaN or infinite"):
        restore_photo(picture, decision, Treatment(model="x"), models, Workspace(tmp_path))


# Any scale


@pytest.fixture
def any_scale(tmp_path):
    """A file of a network of any scale from 1 to 4."""
    return write_expert(tmp_path / "x1-4.pth", upsampler="any", upscale=4)


@pytest.mark.parametrize(("scale", "passes"), [(2.5, (2.5,)), (3, (3,)), (5, (2, 2.5))])
def test_a_model_of_any_scale_reaches_a_scale_by_itself(any_scale, models, repair, scale, passes):
    picture, treatment = Picture(smooth(21, 30), smooth(21, 30, 1)[..., 0]), Treatment(str(any_scale), outscale=scale)
    decision = decide(picture, treatment, models)
    assert decision.steps == tuple((str(any_scale), factor) for factor in passes)
    assert decision.size == (round(21 * scale), round(30 * scale))
    unit = picture.pixels.astype(np.float32) / 255
    for factor in passes:
        lq = torch.from_numpy(unit).permute(2, 0, 1)[None]
        unit = restore(at_scale(load_model(any_scale), factor), lq)[0].permute(1, 2, 0).numpy()
    restored = repair(picture, treatment)
    assert np.array_equal(restored.pixels, (unit * 255).round())
    assert restored.alpha.shape == decision.size


def test_a_network_of_any_scale_is_loaded_for_each_scale(any_scale, models):
    name = str(any_scale)
    assert [models.scale(name), models.scale(name, 2.5), models.largest_scale(name)] == [4, 2.5, 4]
    assert models.get(name, 2.5) is models.get(name, 2.5)


def test_other_libraries_run_a_network_of_any_scale_at_whole_ones(any_scale, monkeypatch):
    monkeypatch.setattr("swinir.inference.export.exported", lambda model, *_: model)
    loaded = LoadedModels(CPU, load=load_by("onnx", CPU, "fp32"))
    assert [loaded.scale(str(any_scale), scale) for scale in (1.3, 2.5, 3)] == [2, 3, 3]


# Strength


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("channels", "network"), [(3, 3), (1, 3), (3, 1)])
def test_strength_goes_straight_from_the_input_to_the_repaired_image(tmp_path, repair, dtype, channels, network):
    path = str(write_expert(tmp_path / "same.pth", upsampler="", upscale=1, in_chans=network))
    picture = Picture(smooth(29, 36, channels, dtype), smooth(29, 36, 1, dtype, seed=3)[..., 0])
    run = RunOptions(tile=16, tile_overlap=4)
    full = repair(picture, Treatment(path, run=run))
    by_strength = {s: repair(picture, Treatment(path, strength=s, run=run), memory_limit=0) for s in (0, 0.3, 1)}
    assert np.array_equal(by_strength[0].pixels, picture.pixels)
    assert np.array_equal(by_strength[1].pixels, full.pixels)
    assert not np.array_equal(full.pixels, picture.pixels)
    line = picture.pixels + 0.3 * (full.pixels.astype(float) - picture.pixels)
    assert np.abs(by_strength[0.3].pixels - line).max() < 0.5 + 0.3 * 0.5 + 0.02  # of rounding twice, and of float32
    assert all(restored.pixels.dtype == dtype for restored in by_strength.values())
    assert all(np.array_equal(restored.alpha, picture.alpha) for restored in by_strength.values())


def test_strength_counts_once_for_all_repairs_and_not_for_enlargement(tmp_path, models):
    options = {"upsampler": "", "upscale": 1}
    paths = [str(write_expert(tmp_path / f"{n}.pth", num_heads=(n,), **options)) for n in (1, 2)]
    paths.append(str(write_expert(tmp_path / "x2.pth")))
    first, second, enlarge = (partial(restore, load_model(path)) for path in paths)
    pixels = smooth(12, 16)
    lq = torch.from_numpy(pixels / np.float32(255)).permute(2, 0, 1)[None]
    expected = enlarge(lq.lerp(second(first(lq)), 0.5))[0].permute(1, 2, 0).numpy()
    decision, treatment = Decision(tuple(map(Step, paths)), (24, 32)), Treatment(strength=0.5)
    restored = restore_photo(Picture(pixels), decision, treatment, models, Workspace(tmp_path)).pixels
    assert np.abs(restored - expected * 255).max() < 0.51


# Images larger than memory


@pytest.fixture
def _small_blocks(monkeypatch):
    monkeypatch.setattr(swinir.image_io.canvas, "BLOCK", 500)


@pytest.mark.usefixtures("_small_blocks")
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("channels", "network"), [(3, 3), (1, 3), (3, 1)])
@pytest.mark.parametrize("options", [{}, {"outscale": 1.5, "alpha": "bicubic"}, {"outscale": 3.7}, {"outscale": 0.4}])
@pytest.mark.parametrize("ensemble", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_in_temporary_files_the_pixels_are_the_same(tmp_path, repair, dtype, channels, network, options, ensemble):
    path = write_expert(tmp_path / "x2.pth", in_chans=network)
    picture = Picture(smooth(29, 36, channels, dtype), smooth(29, 36, 1, dtype, seed=3)[..., 0])
    run = RunOptions(tile=16, tile_overlap=4, self_ensemble=ensemble)
    treatment = Treatment(model=str(path), run=run, **options)
    whole, mapped = (repair(picture, treatment, memory_limit=limit) for limit in (1e9, 0))
    assert np.array_equal(mapped.pixels, whole.pixels)
    assert np.array_equal(mapped.alpha, whole.alpha)
    assert mapped.pixels.dtype == mapped.alpha.dtype == dtype
    assert [p.name for p in tmp_path.iterdir()] == ["x2.pth"]


def test_the_estimate_of_space_holds_all_arrays(tmp_path, models, monkeypatch):
    path = write_expert(tmp_path / "x2.pth")
    picture, workspace = Picture(smooth(29, 36)), Workspace(tmp_path)
    treatment, made = Treatment(model=str(path), outscale=3.7), []
    monkeypatch.setattr(workspace, "array", lambda *args: made.append(np.empty(*args)) or made[-1])
    decision = decide(picture, treatment, models)
    restore_photo(picture, decision, treatment, models, workspace)
    assert sum(array.nbytes for array in made) == bytes_needed(picture, decision, treatment, models)


def test_a_large_image_is_judged_by_crops_on_the_grid_of_jpeg(models, monkeypatch):
    seen = []
    real = swinir.photos.restore_photo.sense
    for name, value in {"SAMPLED_FROM": 0, "CROP": 16, "CROPS": 3}.items():
        monkeypatch.setattr(swinir.photos.restore_photo, name, value)
    monkeypatch.setattr(swinir.photos.restore_photo, "sense", lambda image, tables: seen.append(image) or real(image))
    pixels = np.repeat(smooth(203, 47, 1), 3, axis=2)
    pixels[20, 0] = 1, 2, 3  # between the crops
    decision = decide(Picture(pixels), Treatment(), models)
    assert np.array_equal(seen[0], np.concatenate([pixels[y : y + 16] for y in (0, 88, 184)]))
    assert not decision.measured.gray


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells a process its memory")
@pytest.mark.parametrize(
    ("suffix", "scale", "width", "height"),
    [pytest.param("png", 1, 6000, 4000, marks=pytest.mark.extras), ("tif", 2, 3000, 2500)],
)
def test_memory_is_limited(suffix, scale, width, height):
    """Colours that take 288 and 360 MB as floats; 32 MB for images."""
    words = f"--width {width} --height {height} --scale {scale} --format {suffix} --memory-mb 32 --tile 512".split()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[1])}
    done = subprocess.run([sys.executable, SCRIPT, *words], env=environment, capture_output=True, text=True, check=True)
    resident = float(done.stdout.split("peak ")[1].split(" MB")[0])
    assert resident < 32 + 300, done.stdout
