"""The speed of training is measured; no number of seconds is asserted."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from scripted import load_script
from typer.testing import CliRunner

from swinir.image_io.image import write

CONFIG = """
name = "small"
task = "lightweight_sr"
scale = 2
data = {train = "FOLDER", patch = 8, batch = 2, workers = 0}
network = {embed_dim = 12, depths = [2], num_heads = [2], window_size = 8}
schedule = {iterations = 10}
"""


@pytest.fixture
def config(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for seed in range(2):
        write(folder / f"{seed}.png", np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    path = tmp_path / "small.toml"
    path.write_text(CONFIG.replace("FOLDER", folder.as_posix()))
    return path


def run(*words):
    """Exit code, stdout, stderr of a run in this process."""
    module = load_script("scripts/measure_training.py")
    module.ProcessPoolExecutor = lambda count, **_: ThreadPoolExecutor(
        count
    )  # a process of its own takes long to start
    result = CliRunner().invoke(module.app, [*map(str, words), "--device", "cpu"])
    return result.exit_code, result.stdout, result.stderr


def test_everything_is_measured(config, tmp_path):
    words = ["--config", config, "--set", "accumulate=2", "--steps", 2, "--warmup", 1, "--json", tmp_path / "a.json"]
    code, stdout, stderr = run(*words)
    assert code == 0, stderr
    found = json.loads((tmp_path / "a.json").read_text())
    rates = {name: found[name] for name in found if name.endswith("_second")}
    assert rates.keys() == {
        "loader_samples_per_second",
        "loader_samples_per_cpu_second",
        "trainer_images_per_second",
        "plain_images_per_second",
    }
    for rate in rates.values():
        assert 0 < rate["low"] <= rate["median"] <= rate["high"]
    assert found["overhead_percent"]["median"] > -100
    assert found["parameters"] > 1000
    assert found["threads"] >= 1
    assert found["config"]["accumulate"] == 2
    for name in ("trainer_peak_mb", "plain_peak_mb"):
        assert found[name] is None or found[name] >= 0
    for name in (*rates, "overhead_percent", "trainer_peak_mb"):
        assert name in stdout


def test_the_loader_alone_is_measured_and_a_wrong_configuration_ends_in_one_line(config):
    code, stdout, _ = run("--config", config, "--steps", 2, "--loader-only")
    assert code == 0
    assert "loader_samples_per_second" in stdout
    assert "trainer" not in stdout
    code, _, stderr = run("--config", config, "--set", "data.bach=3")
    assert code == 2
    assert "did you mean batch" in stderr
    assert len(stderr.splitlines()) == 1


def test_variants_are_measured_one_after_the_other_and_unknown_ones_are_refused(config, tmp_path, monkeypatch):
    plain, path = torch.compile, tmp_path / "rates.json"
    monkeypatch.setattr(torch, "compile", lambda function, **_: plain(function, backend="eager"))
    words = ["--config", config, "--steps", 2, "--warmup", 1, "--json", path]
    code, stdout, stderr = run(*words, "--variants", "eager,compiled")
    assert code == 0, stderr
    found = json.loads(path.read_text())
    for name in ("eager", "compiled"):
        assert name in stdout
        rates = {key: found[name][key]["median"] for key in found[name]}
        assert rates["trainer_images_per_second"] == pytest.approx(2 * rates["trainer_steps_per_second"], rel=0.01)
        assert 0 <= rates["waiting_for_data"] < 1
        assert rates["first_step_seconds"] > 0
    code, _, stderr = run(*words, "--variants", "eager,fast")
    assert (code, stderr) == (2, "--variants takes eager and compiled, got fast\n")
