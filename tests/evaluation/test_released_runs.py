"""Runs of the released tester, repeated through our command: same files, pixels, numbers and averages.

Each run takes full-size networks; `pytest -m slow tests/test_released_runs.py` does all of them.
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

pytestmark = pytest.mark.slow

RUNS = (
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


@pytest.fixture(scope="module")
def runs(public_folder):
    """(folder of the goldens, what was expected of each run)."""
    folder = public_folder("reference") / "cli"
    return folder, json.loads((folder / "expected.json").read_text())


@pytest.fixture
def checkpoint(tmp_path):
    """A function that makes a released file's stand-in: its names and shapes, reproducible weights."""
    shapes = json.loads(gzip.decompress((DATA / "official_shapes.json.gz").read_bytes()))
    configs = json.loads((DATA / "official_configs.json").read_text())
    made = []

    def make(name, key, seed):
        weights = state(shapes[name], seed, configs[name]["config"]["img_range"])
        path = tmp_path / f"{name}.pth"
        torch.save({key: {k: torch.from_numpy(v) for k, v in weights.items()}}, path)
        made.append(path)
        return path

    yield make
    for path in made:  # up to 110 MB each, and pytest keeps its folders
        path.unlink()


def averages(text):
    """The lines of a run's output that hold means, and the folder's name above them."""
    return [line.rstrip() for line in text.splitlines() if line.startswith(("-- Average", "results/"))]


def test_every_run_is_listed(runs):
    assert set(RUNS) == runs[1].keys()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_that_of_the_released_tester(name, runs, checkpoint, tmp_path, monkeypatch, capsys):
    folder, expected = runs
    expected = expected[name]
    path = checkpoint(expected["checkpoint"], expected["params_key"], expected["seed"])
    words, previous = [], ""
    for word in expected["args"]:
        words.append(str(folder / "sets" / word) if previous.startswith("--folder") else word)
        previous = word
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(2)

    assert main(["test", *words, "--model_path", str(path), "--device", "cpu", "--json", "rows.json"]) == 0

    assert averages(capsys.readouterr().out) == averages(expected["stdout"])
    theirs = sorted((folder / "outputs" / name).iterdir())
    ours = sorted((tmp_path / expected["results_folder"]).iterdir())
    assert [p.name for p in ours] == [p.name for p in theirs]
    for our, their in zip(ours, theirs, strict=True):
        difference = np.abs(read(our).astype(int) - read(their))
        assert difference.max() <= 1
        assert (difference > 0).mean() <= 1e-3
    images = json.loads((tmp_path / "rows.json").read_text())["images"]
    calls, each = expected["metric_calls"], len(expected["metric_calls"]) // len(images)
    for i, image in enumerate(images):
        computed = {metric for metric, _ in METRICS.values() if image[metric] is not None}
        of_image = calls[i * each : (i + 1) * each]
        assert computed == {METRICS[function][0] for function, _ in of_image}
        for function, value in of_image:
            metric, tolerance = METRICS[function]
            assert image[metric] == pytest.approx(value, abs=tolerance)
