"""Fitting the noise estimator: a file that the package loads, and samples whose noise is known exactly."""

import numpy as np
import pytest
import skimage.data
import typer
from scripted import load_script
from typer.testing import CliRunner

from swinir.degradations.estimate_noise import NoiseEstimator, load
from swinir.image_io.image import write


@pytest.fixture(scope="module")
def script():
    return load_script("scripts/fit_noise_estimator.py")


def test_a_fitted_file_is_loaded(script, tmp_path):
    for name in ("coffee", "astronaut"):
        write(tmp_path / f"{name}.png", getattr(skimage.data, name)()[:160, :200])
    app = typer.Typer()
    app.command()(script.main)
    out = tmp_path / "fitted.safetensors"
    done = CliRunner().invoke(app, [str(tmp_path), "-o", str(out), "--samples", "4", "--steps", "2"])
    assert done.exit_code == 0, done.output
    assert "4 samples of 1 photographs" in done.output
    assert isinstance(load(out), NoiseEstimator)


def test_samples_are_their_clean_image_and_their_noise(script):
    image = skimage.data.coffee()[:160, :200]
    for number in range(12):
        noisy, noise = script.make_sample([image], np.random.default_rng([1, number]))
        clean = noisy - noise
        assert noisy.shape == (128, 128, 3)
        assert np.abs(clean - clean.round()).max() < 1e-3
        assert clean.min() > -1e-3
        assert clean.max() < 255.001
