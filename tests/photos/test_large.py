"""Pictures in strips: the pixels of `repair`, whatever the passes, the channels, the size and the alpha."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import smooth, write_expert

import swinir.photos.large
from swinir.image_io.picture import Picture, rows_of
from swinir.image_io.reader import read_picture
from swinir.photos.large import make_plan, repair_rows, survey, why_whole
from swinir.photos.restore_photo import Experts, Treatment, repair
from swinir.photos.select_models import Wish

CPU = torch.device("cpu")
SCRIPT = Path(__file__).parents[2] / "scripts" / "measure_strips.py"


@pytest.fixture
def experts():
    return Experts(CPU, budget=1e9)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr("swinir.image_io.picture.BLOCK", 500)
    monkeypatch.setattr(swinir.photos.large, "BLOCK", 700)


def in_strips(path, picture, treatment, experts, **options):
    """What a picture becomes, read back, and the plan."""
    rows = rows_of(picture)
    plan = make_plan(rows, treatment, experts)
    repair_rows(rows, plan, path, treatment, experts, **options)
    return read_picture(path), plan


def with_alpha(pixels, kind):
    if kind is None:
        return Picture(pixels)
    top = np.iinfo(pixels.dtype).max
    alpha = smooth(*pixels.shape[:2], 1, pixels.dtype, seed=3)[..., 0] if kind == "waves" else None
    return Picture(pixels, np.full(pixels.shape[:2], top, pixels.dtype) if alpha is None else alpha)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("channels", "network"), [(3, 3), (1, 3), (3, 1), (1, 1)])
@pytest.mark.parametrize("outscale", [None, 1.5, 3.7])
@pytest.mark.parametrize("alpha", [None, "opaque", "waves"])
def test_the_pixels_are_those_of_the_whole(tmp_path, experts, dtype, channels, network, outscale, alpha):
    path = write_expert(tmp_path / "x2.pth", in_chans=network)
    picture = with_alpha(smooth(45, 52, channels, dtype), alpha)
    treatment = Treatment(model=str(path), outscale=outscale, tile=16, tile_overlap=4)
    found, plan = in_strips(tmp_path / "x.png", picture, treatment, experts)
    whole = repair(picture, treatment, experts)
    assert plan.decision.passes == whole.decision.passes
    assert np.array_equal(found.pixels, whole.picture.pixels)
    assert found.pixels.dtype == dtype
    assert (found.alpha is None) == (alpha is None)
    assert alpha is None or np.array_equal(found.alpha, whole.picture.alpha)


def test_grey_in_colour_stays_grey(tmp_path, experts):
    path = write_expert(tmp_path / "x2.pth")
    picture = Picture(np.repeat(smooth(30, 40, 1), 3, axis=2))
    treatment = Treatment(model=str(path), tile=16, tile_overlap=4)
    found, _ = in_strips(tmp_path / "x.tif", picture, treatment, experts)
    assert np.array_equal(found.pixels, repair(picture, treatment, experts).picture.pixels)


def test_alpha_can_be_resized_instead(tmp_path, experts):
    path = write_expert(tmp_path / "x2.pth")
    picture = with_alpha(smooth(30, 40), "waves")
    treatment = Treatment(model=str(path), tile=16, tile_overlap=4, alpha="bicubic")
    found, _ = in_strips(tmp_path / "x.png", picture, treatment, experts)
    assert np.array_equal(found.alpha, repair(picture, treatment, experts).picture.alpha)


def test_experts_are_chosen_as_for_the_whole(tmp_path, experts):
    noise = np.random.default_rng(0).normal(0, 25, (96, 96, 3))
    picture = Picture(np.clip(smooth(96, 96) + noise, 0, 255).round().astype(np.uint8))
    treatment = Treatment(wish=Wish(2.0), outscale=2.0, tile=48, tile_overlap=16)
    found, plan = in_strips(tmp_path / "x.png", picture, treatment, experts)
    whole = repair(picture, treatment, experts)
    assert len(plan.decision.passes) == 2
    assert plan.decision == whole.decision
    assert np.array_equal(found.pixels, whole.picture.pixels)


def test_tiles_follow_from_the_memory_for_strips(tmp_path, experts):
    path = write_expert(tmp_path / "x2.pth")
    treatment = Treatment(model=str(path), tile_overlap=4)
    shares = {}
    for room in (1e9, 1.0):
        shares[room] = []
        in_strips(
            tmp_path / "x.png", Picture(smooth(45, 52)), treatment, experts, strip_bytes=room,
            progress=shares[room].append,
        )  # fmt: skip
    assert shares[1e9] == [1]
    assert len(shares[1.0]) > 50
    assert shares[1.0][-1] == 1


def test_a_large_picture_is_judged_by_crops_on_its_own_grid(monkeypatch):
    monkeypatch.setattr(swinir.photos.large, "CROP", 16)
    monkeypatch.setattr(swinir.photos.large, "CROPS", 3)
    pixels = smooth(203, 47, 3)
    pixels[..., 1] = np.arange(203)[:, None]
    found = survey(rows_of(Picture(pixels)))
    starts = [0, 88, 184]
    assert np.array_equal(found.sample, np.concatenate([pixels[y : y + 16] for y in starts]))
    assert not found.gray
    assert found.alpha is None


@pytest.mark.parametrize(("size", "starts"), [(2048, [0]), (2049, [0, 256, 512, 768, 1024, 1280, 1536, 1792])])
def test_crops_lie_on_the_grid_of_jpeg_and_reach_over_the_picture(size, starts):
    crops = swinir.photos.large._crops(size)
    assert [crop.start for crop in crops] == starts
    assert crops[-1].stop in (size, 2048)


@pytest.mark.parametrize(
    ("options", "reason"),
    [({}, None), ({"tile": 64}, None), ({"tile": None}, "without tiles"), ({"self_ensemble": True}, "turns pictures")],
)
def test_what_cannot_be_had_in_strips_is_told(options, reason):
    found = why_whole(Treatment(**options))
    assert found is None if reason is None else reason in found


def test_a_result_that_is_not_finite_is_refused_and_leaves_nothing(tmp_path):
    path = write_expert(tmp_path / "x2.pth")
    model = swinir.photos.restore_photo.load_expert(str(path), CPU)
    with torch.no_grad():
        model.conv_first.weight.fill_(float("nan"))
    experts = Experts(CPU, budget=1e9, load=lambda name, device: model)
    with pytest.raises(ValueError, match="NaN or infinite"):
        in_strips(tmp_path / "x.png", Picture(smooth(12, 16)), Treatment(model="x"), experts)
    assert [p.name for p in tmp_path.iterdir()] == ["x2.pth"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells a process its peak memory")
@pytest.mark.parametrize(("suffix", "scale", "width", "height"), [("png", 1, 8000, 4000), ("tif", 2, 4000, 3000)])
def test_no_more_than_strips_is_held(suffix, scale, width, height):
    """Of colours that take 384 or 576 MB as floats when they are done; strips of 64 MB."""
    words = f"--width {width} --height {height} --scale {scale} --format {suffix} --strip-mb 64".split()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[1])}
    done = subprocess.run([sys.executable, SCRIPT, *words], env=environment, capture_output=True, text=True, check=True)
    peak = float(done.stdout.split("peak ")[1].split(" MB")[0])
    assert peak < 64 + 300, done.stdout
