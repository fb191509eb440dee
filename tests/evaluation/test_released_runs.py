"""Runs of the released tester repeated by our command: the same files, pixels, metrics and averages.

The goldens in tests/data are of crops of scikit-image's photographs; further ones need the public benchmark images.
"""

import gzip
import json

import numpy as np
import pytest
import torch
from conftest import DATA
from golden_state import state

from swinir.cli.main import main
from swinir.image_io.image import read

PHOTOGRAPHS = DATA / "cli_photographs"
QUICK = ("classical_x3", "lightweight_x2_tiled", "real_x4", "color_50", "car_10")  # the others are marked slow
ON_PUBLIC_IMAGES = (
    "classical_x2",
    "classical_x3",
    "classical_x4",
    "classical_x8",
    "lightweight_x2",
    "lightweight_x3",
    "lightweight_x4",
    "lightweight_x2_tiled",
    "real_x4",
    "real_x4_tiled",
    "real_x4_large",
    "gray_15",
    "gray_25",
    "gray_50",
    "color_15",
    "color_50",
    "car_10",
    "car_40",
    "car_colour_input_20",
    "color_car_10",
    "color_car_30",
)
METRICS = {
    "calculate_psnr": ("psnr", 1e-3),
    "calculate_ssim": ("ssim", 1e-5),
    "calculate_psnrb": ("psnrb", 1e-3),
    "calculate_psnr_y": ("psnr_y", 1e-3),
    "calculate_ssim_y": ("ssim_y", 1e-5),
    "calculate_psnrb_y": ("psnrb_y", 1e-3),
}


def runs_in(folder):
    """The goldens of a folder, by the run's name."""
    return json.loads((folder / "expected.json").read_text())


@pytest.fixture
def repeat(tmp_path, monkeypatch, capsys):
    """A function that repeats a run with weights of the released names and shapes, and compares all it gives."""
    shapes = json.loads(gzip.decompress((DATA / "official_shapes.json.gz").read_bytes()))
    configs = json.loads((DATA / "official_configs.json").read_text())
    checkpoints = []

    def check(folder, name, device="cpu"):
        expected = runs_in(folder)[name]
        released = expected["checkpoint"]
        weights = state(shapes[released], expected["seed"], configs[released]["config"]["img_range"])
        checkpoints.append(tmp_path / f"{released}.pth")
        torch.save({expected["params_key"]: {k: torch.from_numpy(v) for k, v in weights.items()}}, checkpoints[0])
        words = [
            str(folder / "sets" / word) if before.startswith("--folder") else word
            for before, word in zip(["", *expected["args"]], expected["args"], strict=False)
        ]
        monkeypatch.chdir(tmp_path)
        words += ["--model_path", str(checkpoints[-1]), "--device", str(device), "--json", "rows.json"]
        assert main(["test", *words]) == 0

        assert averages(capsys.readouterr().out) == averages(expected["stdout"])
        same_images(tmp_path / expected["results_folder"], folder / "outputs" / name)
        same_metrics(json.loads((tmp_path / "rows.json").read_text())["images"], expected["metric_calls"])

    yield check
    for path in checkpoints:  # up to 110 MB each, and pytest keeps its folders
        path.unlink()


def averages(text):
    """The lines of a run's output that hold means, and the folder's name above them."""
    return [line.rstrip() for line in text.splitlines() if line.startswith(("-- Average", "results/"))]


def same_images(ours, theirs):
    assert sorted(path.name for path in ours.iterdir()) == sorted(path.name for path in theirs.iterdir())
    for path in theirs.iterdir():
        difference = np.abs(read(ours / path.name).astype(int) - read(path))
        assert difference.max() <= 1
        assert (difference > 0).mean() <= 1e-3


def same_metrics(images, calls):
    each = len(calls) // len(images)
    for i, image in enumerate(images):
        of_image = calls[i * each : (i + 1) * each]
        computed = {metric for metric, _ in METRICS.values() if image[metric] is not None}
        assert computed == {METRICS[function][0] for function, _ in of_image}
        for function, value in of_image:
            metric, tolerance = METRICS[function]
            assert image[metric] == pytest.approx(value, abs=tolerance)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in runs_in(PHOTOGRAPHS)]
)
def test_a_run_on_photographs_is_that_of_the_released_tester(name, repeat):
    repeat(PHOTOGRAPHS, name)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["classical_x4", "real_x4_tiled", "gray_25"])  # the commands of the released README
def test_a_run_on_a_gpu_is_that_of_the_released_tester(name, repeat, cuda):
    repeat(PHOTOGRAPHS, name, cuda)


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_PUBLIC_IMAGES)
def test_a_run_on_public_images_is_that_of_the_released_tester(name, repeat, public_folder):
    folder = public_folder("reference") / "cli"
    assert set(ON_PUBLIC_IMAGES) == runs_in(folder).keys()
    torch.set_num_threads(2)
    repeat(folder, name)
