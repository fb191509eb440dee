"""The script that holds tiles against whole pictures: what it counts."""

import importlib
import json
import math
from pathlib import Path

import pytest
import torch
from pictures import smooth, write, write_expert
from typer.testing import CliRunner

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")  # where the processes that it starts look for it, too
    return importlib.import_module("measure_tiles")


def test_agreement_counts_rounded_values(script):
    whole = torch.tensor([0.0, 0.5, 1.0, 0.25])
    tiled = whole + torch.tensor([0.0, 2 / 255, 0.0, 1e-6])
    found = script.agreement(whole, tiled)
    assert found["share"] == 0.25
    assert found["levels"] == 2
    assert found["db"] == pytest.approx(-10 * math.log10((2 / 255) ** 2 / 4), abs=1e-3)
    assert script.agreement(whole, whole) == {"db": math.inf, "share": 0, "levels": 0}


@pytest.mark.slow
def test_images_larger_than_a_tile_are_compared(script, tmp_path):
    (tmp_path / "in").mkdir()
    for name, side in (("small", 12), ("large", 40)):
        write(tmp_path / "in" / f"{name}.png", smooth(side, side))
    expert = write_expert(tmp_path / "x2.pth")
    words = [tmp_path / "in", "--expert", expert, "--tile", 16, "--tile_overlap", 8, "--json", tmp_path / "all.json"]
    result = CliRunner().invoke(script.app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    (row,) = json.loads((tmp_path / "all.json").read_text())
    assert (row["picture"], row["size"]) == ("large.png", "40x40")
    assert row["db"] > 30
    assert min(row["whole_mb"], row["tiled_mb"]) >= 0
    assert "1 pictures" in result.output


def test_a_square_is_cut_from_the_middle_or_mirrored_on(script, tmp_path):
    from swinir.weights.checkpoint import load_model

    model = load_model(write_expert(tmp_path / "x2.pth"))
    path = write(tmp_path / "a.png", smooth(30, 50))
    whole = script.picture(path, model, None)
    assert torch.equal(script.picture(path, model, 20), whole[..., 5:25, 15:35])
    larger = script.picture(path, model, 60)
    assert larger.shape == (1, 3, 60, 60)
    assert torch.equal(larger[..., :30, :50], whole)
