"""`swinir compare`: its output and files, interruptions, and wrong usage."""

import csv
import hashlib
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from comparisons import write_set5
from external_networks import write_external
from pictures import smooth, write_expert

from swinir.bench import compare_networks as module
from swinir.cli.compare import expand_models
from swinir.cli.main import main
from swinir.image_io.image import read, write
from swinir.metrics import niqe as niqe_module
from swinir.metrics.niqe import bundled, save
from swinir.models.swinir import NetworkConfig, SwinIR
from swinir.weights.checkpoint import write_checkpoint


@pytest.fixture
def sets(tmp_path):
    return write_set5(tmp_path / "sets")


def command(*words):
    return main(["compare", *map(str, words), "--device", "cpu"])


def test_the_command_writes_what_it_was_asked_for(sets, tmp_path, capsys):
    weights, rcan = write_expert(tmp_path / "x2.pth"), write_external(tmp_path / "rcan.pth", "RCAN")
    files = {name: tmp_path / f"out.{name}" for name in ("md", "csv", "json", "png")}
    options = ["--markdown", files["md"], "--csv", files["csv"], "--json", files["json"], "--picture", files["png"]]
    words = ["--models", f"bicubic,{weights}", rcan, "--set", "Set5", "--testsets", sets, "--scale", 2, "--no-memory"]
    assert command(*words, *options, "--precision", "fp32") == 0
    out = capsys.readouterr().out
    assert "classical_sr x2, Set5: 3 images, 3 networks" in out
    rows = list(csv.DictReader(io.StringIO(files["csv"].read_text())))
    assert [row["model"] for row in rows] == ["bicubic", "x2", "rcan"]
    assert float(rows[0]["psnr_y"]) > 10
    found = json.loads(files["json"].read_text())
    assert [row["architecture"] for row in found["models"]] == ["interpolation", "SwinIR", "RCAN"]
    assert len(found["images"]) == 9
    assert found["notes"][0] in files["md"].read_text()
    assert f"look at {files['png']}" in out
    assert read(files["png"]).shape[0] > 3 * 240


def test_the_command_says_what_failed_and_ends_with_1(sets, capsys):
    words = ["--set", "Set5", "--testsets", sets, "--scale", 2, "--no-memory"]
    assert command("--models", "bicubic", "--models", "nonsense", *words) == 1
    out = capsys.readouterr().out
    assert re.search(r"^nonsense +failed: nonsense: no such file", out, re.MULTILINE)


def test_any_scale_compares_the_networks_that_have_it(sets, tmp_path, capsys):
    options = {"upscale": 3, "upsampler": "any", "embed_dim": 12, "depths": (1,), "num_heads": (2,), "img_size": 16}
    network = NetworkConfig(**options)
    write_checkpoint(tmp_path / "any.pth", SwinIR(network).state_dict(), network)
    words = ["--folder_gt", sets / "Set5" / "HR", "--scale", 2.5, "--no-memory", "--limit", 1]
    files = ["--picture", tmp_path / "a.png", "--json", tmp_path / "a.json"]
    assert command("--models", f"bicubic,{tmp_path / 'any.pth'}", *words, *files) == 0
    out = capsys.readouterr().out
    assert "classical_sr x2.5" in out
    assert json.loads((tmp_path / "a.json").read_text())["scale"] == 2.5
    assert read(tmp_path / "a.png").size
    assert command("--models", write_expert(tmp_path / "x2.pth"), *words) == 1
    assert "x2 enlarges by 2, not by 2.5" in re.sub("[.]pth", "", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("level", "task"), [(["--noise", 25], "color_dn, noise 25"), (["--jpeg", 10], "color_jpeg_car, jpeg 10")]
)
def test_levels_say_which_task_is_meant(sets, level, task, capsys):
    assert command("--models", "bicubic", *level, "--folder_gt", sets / "Set5" / "HR", "--no-memory") == 0
    out = capsys.readouterr().out
    assert task in out
    assert "\ninput " in out


def test_a_set_without_references_is_judged_by_niqe(tmp_path, capsys):
    folder = tmp_path / "RealSRSet+5images"
    folder.mkdir()
    write(folder / "a.png", smooth(60, 60) // 2 + np.random.default_rng(0).integers(0, 60, (60, 60, 3), dtype=np.uint8))
    words = ["--set", folder.name, "--testsets", tmp_path, "--scale", 2, "--no-memory", "--picture", tmp_path / "a.png"]
    assert command("--models", "bicubic", *words) == 0
    out = capsys.readouterr().out
    assert "real_sr x2" in out
    assert "NIQE (private): with the parameters of this package; not comparable with published numbers." in out
    assert "PSNR" not in out


def test_published_parameters_give_a_niqe_without_reserve_and_others_are_named(sets, tmp_path, capsys, monkeypatch):
    for name, published in (("published", True), ("mine", False)):
        pristine = replace(bundled(), mean=bundled().mean * (2 if published else 1))
        save(tmp_path / f"{name}.npz", pristine)
        values = np.vstack([pristine.mean, pristine.covariance]).tobytes()
        monkeypatch.setattr(niqe_module, "PUBLISHED", hashlib.sha256(values).hexdigest() if published else "")
        words = ["--set", "Set5", "--testsets", sets, "--scale", 2, "--metrics", "niqe", "--no-memory", "--limit", 1]
        parameters = ["--niqe_parameters", tmp_path / f"{name}.npz", "--json", tmp_path / f"{name}.json"]
        assert command("--models", "bicubic", *words, *parameters) == 0
        assert ("private" in capsys.readouterr().out) is not published
        found = json.loads((tmp_path / f"{name}.json").read_text())
        assert found["niqe_parameters"] == f"{name}.npz"
        assert list(found["images"][0]["metrics"]) == ["niqe" if published else "niqe_private"]
        assert ("parameters of mine.npz" in " ".join(found["notes"])) is not published


def test_a_crop_and_images_of_the_picture_can_be_named(sets, tmp_path, capsys):
    words = ["--set", "Set5", "--testsets", sets, "--scale", 2, "--no-memory", "--picture", tmp_path / "a.png"]
    assert command("--models", "bicubic", *words, "--crop", "100,10,30", "--show", "2,1") == 0
    assert "--crop 100,10,30 does not lie in 1 of 96x104 pixels" in capsys.readouterr().err
    assert read(tmp_path / "a.png").shape[0] < 2 * 240


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--models", ","], "--models names no network"),
        (["--models", "bicubic,bicubic", "--scale", "2"], "bicubic is named twice"),
        (["--scale", "2", "--noise", "15"], "got --scale and --noise"),
        (["--set", "Set6", "--scale", "2"], "unknown set 'Set6'; choose from Set5"),
        (["--set", "Set14", "--scale", "2"], "Set14; name the folder of sets with --testsets"),
        (["--set", "Set5", "--scale", "9"], "takes scale 2, 3, 4, 8, and any between"),
        (["--set", "Set5", "--scale", "2", "--crop", "1,2"], "--crop must be X,Y,SIZE"),
        (["--set", "Set5", "--scale", "2", "--show", "9"], "--show 9: no such image; choose from 0, 1, 2"),
        (["--set", "Set5", "--scale", "2", "--metrics", "fid"], "unknown metric 'fid'"),
        (["--set", "Set5", "--scale", "2", "--picture", "a.jpg"], "--picture must end in .png"),
        (["--set", "Set5", "--scale", "2", "--csv", "none/a.csv"], "folder not found"),
        (["--set", "Set5", "--scale", "2", "--folder_gt", "."], "--set names its folders itself"),
        (["--scale", "2"], "no images to compare on"),
    ],
    ids=str,
)
def test_wrong_usage_is_one_line_before_any_work(words, message, sets, monkeypatch, capsys):
    monkeypatch.setattr(module, "load_external", None)
    models = [] if "--models" in words else ["--models", "bicubic"]
    if (words[0] == "--scale" and len(words) == 4) or words[0] == "--models":
        words = [*words, "--set", "Set5"]
    assert command(*models, *words, "--testsets", sets) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1


def test_a_list_of_models_needs_no_commas():
    words = ["compare", "--models", "a", "b", "c.pth", "--set", "Set5", "--models", "d,e"]
    assert expand_models(words) == [
        *("compare", "--models", "a", "--models", "b", "--models", "c.pth", "--set", "Set5", "--models", "d,e")
    ]
    assert expand_models(["compare", "--scale", "2", "x"]) == ["compare", "--scale", "2", "x"]
    assert expand_models(["compare", "--models"]) == ["compare", "--models"]


def test_what_was_measured_before_an_interruption_is_kept(sets, tmp_path, monkeypatch, capsys):
    def interrupted(image, *parameters, **options):
        if len(seen) == 3:  # the second network on the second image
            raise SystemExit(130)
        seen.append(image.shape)
        return 5.0

    seen = []
    monkeypatch.setattr(module, "niqe", interrupted)
    names = ["--models", f"bicubic,{write_expert(tmp_path / 'x2.pth')}", "--metrics", "niqe", "--no-memory"]
    words = ["--set", "Set5", "--testsets", sets, "--scale", 2, "--json", tmp_path / "a.json"]
    assert command(*names, *words) == 130
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["complete"] is False
    assert [(row["model"], row["image"]) for row in found["images"]] == [("bicubic", "0"), ("x2", "0")]
    assert "Means over 1 image;" in capsys.readouterr().out
