"""Studies of training: arms are trained once and resumed, and rows become tables."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from training import CPU, smooth_image, write_images

from swinir.image_io.image import write
from swinir.train.distributed import Processes
from swinir.train.muon import orthogonalize
from swinir.train.trainer import Trainer

SCRIPT = Path(__file__).parents[2] / "scripts" / "study_training.py"
STUDY = """
[bases.noise]
levels = [15, 50]
test_set = "McMaster"
[bases.noise.config]
task = "color_dn"
degradation = {noise = [0, 55]}
data = {train = "FOLDER", patch = 8, batch = 2, holdout = 1}
network = {embed_dim = 12, depths = [2], num_heads = [2]}
schedule = {iterations = 4}
save_every = 2
log_every = 2
[arms.adam]
base = "noise"
seeds = [0, 1]
test = true
[arms.all]
base = "noise"
set = {"optimizer.name" = "muon", "optimizer.lr" = 4e-3}
convolutions = true
conditioned = true
[tables]
"Optimizers" = ["adam", "all"]
"""


@pytest.fixture(scope="module")
def script():
    specification = importlib.util.spec_from_file_location("study_training", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    sys.modules["study_training"] = module
    specification.loader.exec_module(module)
    yield module
    del sys.modules["study_training"]


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path / "images")
    (tmp_path / "testsets" / "McMaster").mkdir(parents=True)
    write(tmp_path / "testsets" / "McMaster" / "1.png", smooth_image(24, 24, 9))
    (tmp_path / "study.toml").write_text(STUDY.replace("FOLDER", (tmp_path / "images").as_posix()))
    return tmp_path


@pytest.fixture
def trained(script, folder):
    """Trains the arms that have no row; returns the rows."""

    def train(*arms):
        script.train(folder, arms=list(arms), runs=folder / "runs", testsets=folder / "testsets")
        return script.read_rows(folder / "results.jsonl")

    return train


def test_each_arm_and_seed_is_trained_and_evaluated_once(script, trained, folder, monkeypatch, capsys):
    rows = trained()
    assert [(row["arm"], row["seed"]) for row in rows] == [("adam", 0), ("all", 0), ("adam", 1)]
    assert [list(row["psnr"]) for row in rows] == [["held out", "McMaster"], ["held out"], ["held out", "McMaster"]]
    assert all(scores.keys() == {"15", "50"} for row in rows for scores in row["psnr"].values())
    assert [[step for step, _ in row["loss"]] for row in rows] == [[2, 4]] * 3
    monkeypatch.setattr(script, "train_one", lambda *_: pytest.fail("trained again"))
    assert trained() == rows
    capsys.readouterr()
    script.table(folder)
    assert capsys.readouterr().out.count("\n| a") == 3  # titles and two arms


def test_an_interrupted_training_is_resumed(trained, folder, monkeypatch):
    expected = trained("all")
    (folder / "results.jsonl").unlink()
    (folder / "runs").rename(folder / "before")
    whole = Trainer.train_on

    def interrupted(self, batch):
        if self.step == 3:
            raise KeyboardInterrupt
        return whole(self, batch)

    monkeypatch.setattr(Trainer, "train_on", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trained("all")
    monkeypatch.setattr(Trainer, "train_on", whole)
    found = trained("all")
    for name in ("psnr", "loss", "signature"):
        assert found[0][name] == expected[0][name]
    assert len(list((folder / "runs").rglob("step-*.pt"))) > 0


def test_results_of_another_configuration_and_unknown_arms_are_refused(trained, folder):
    trained("all")
    study = folder / "study.toml"
    study.write_text(study.read_text().replace("4e-3", "5e-3"))
    with pytest.raises(ValueError, match="'all' has results of another configuration; remove its rows"):
        trained("all")
    with pytest.raises(ValueError, match="no arm 'sgd'; the arms are adam, all"):
        trained("sgd")


def test_levels_of_super_resolution_are_scales_and_each_arm_may_have_its_own(script, trained, folder):
    (folder / "testsets" / "Set5").mkdir()
    (folder / "testsets" / "McMaster").rename(folder / "testsets" / "Set5" / "HR")
    study = (folder / "study.toml").read_text()
    for old, new in (
        ("McMaster", "Set5"),
        ('task = "color_dn"\ndegradation = {noise = [0, 55]}', 'task = "lightweight_sr"\nscale = 2'),
        ("levels = [15, 50]", "levels = [1.5, 6]"),
        ("seeds = [0, 1]", "set = {scale = [1.1, 4]}"),
        ("convolutions = true\nconditioned = true", "levels = [1.7]"),
    ):
        assert old in study
        study = study.replace(old, new)
    (folder / "study.toml").write_text(study)
    any_scale, fixed = trained()
    assert any_scale["psnr"]["held out"].keys() == any_scale["psnr"]["Set5"].keys() == {"1.5", "6"}
    assert fixed["psnr"]["held out"].keys() == {"1.7"}


def test_images_are_cut_off_the_grid_of_jpeg_too(script, trained, folder):
    study = (folder / "study.toml").read_text()
    for old, new in (
        ("levels = [15, 50]", "levels = [10]\noffsets = [3]"),
        ('task = "color_dn"\ndegradation = {noise = [0, 55]}', 'task = "color_jpeg_car"'),
        ("patch = 8", "patch = 7"),
    ):
        assert old in study
        study = study.replace(old, new)
    (folder / "study.toml").write_text(study.replace("conditioned = true", ""))
    (row,) = trained("all")
    assert row["psnr"].keys() == {"held out", "held out +3"}
    study = script.read_config(folder / "study.toml", script.Study)
    (_, _, config), *_ = script.trainings(study, ["all"])
    sample = script.Sample("1", lq=None, gt=folder / "testsets" / "McMaster" / "1.png")
    aligned, shifted = (script.middle(sample, config.protocol, offset)[0] for offset in (0, 3))
    assert np.array_equal(aligned[3:, 3:], shifted)


def row(arm, seed, held_out, mcmaster=None, seconds=0.1):
    sets = {"held out": held_out} | ({"McMaster": mcmaster} if mcmaster else {})
    return {"arm": arm, "seed": seed, "psnr": sets, "cpu_seconds_per_step": seconds}


def test_a_table_has_means_deviations_and_gains_seed_by_seed(script):
    rows = [
        row("adam", 0, {"15": 30.0, "50": 20.0}, {"15": 33.0}),
        row("adam", 1, {"15": 32.0, "50": 22.0}),
        row("muon", 0, {"15": 31.0, "50": 21.0}, {"15": 33.5}, seconds=0.2),
        row("muon", 1, {"15": 33.5, "50": 23.5}, seconds=None),  # resumed after its last step
        row("muon", 2, {"15": 99.0, "50": 99.0}),  # has no partner: in the mean, not in the gain
        row("other", 0, {"15": 0.0, "50": 0.0}),
    ]
    table = script.make_table(rows[:4], ("adam", "muon", "absent"))
    assert table.titles == (
        "arm", "seeds", "held out 15", "held out 50", "held out gain", "McMaster 15", "McMaster gain", "CPU ms a step",
    )  # fmt: skip
    assert table.rows == [
        ("adam", "2", "31.00 ± 1.41", "21.00 ± 1.41", "", "33.00", "", "100"),
        ("muon", "2", "32.25 ± 1.77", "22.25 ± 1.77", "1.25 ± 0.35", "33.50", "0.50", "200"),
    ]
    assert script.make_table(rows, ("adam", "muon")).rows[1][4] == "1.25 ± 0.35"


def test_muon_for_convolutions_takes_their_weights_as_matrices(script):
    weight = torch.nn.Parameter(torch.randn(12, 4, 3, 3, generator=torch.Generator().manual_seed(0)))
    before = weight.detach().clone()
    optimizer = script.ConvolutionMuon([], [weight], lr=0.1, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    options = optimizer.param_groups[0]
    update = 0.05 * weight.grad.flatten(1) + 0.95 * 0.05 * 0  # first buffer: (1 - momentum) * gradient
    update = torch.lerp(weight.grad.flatten(1), update, options["momentum"])
    whole = orthogonalize(update[None], options["ns_coefficients"], options["ns_steps"], options["eps"])[0]
    optimizer.step()
    expected = before.flatten(1) - 0.1 * 0.2 * 36**0.5 * whole.float()
    torch.testing.assert_close(weight.detach().flatten(1), expected)
    optimizer.zero_grad()
    assert weight.grad is None


def test_every_parameter_has_one_optimizer_when_muon_takes_convolutions(script, folder):
    study = script.read_config(folder / "study.toml", script.Study)
    _, arm, config = next(script.trainings(study, ["all"]))
    optimization = script.make_trainer(arm, config, folder / "run").optimization
    views = {id(view): weight for view, weight in optimization.muon.views}
    held = [p for o in (optimization.optimizer, optimization.muon) for p in o.param_groups[0]["params"]]
    assert {id(views.get(id(p), p)) for p in held} == {id(p) for p in optimization.parameters}
    assert len(held) == len(optimization.parameters)
    assert len(views) == 5  # first, level, RSTB's, body's and last


def test_a_conditioned_network_sees_the_draws_of_a_blind_one_and_their_level(script):
    gt = smooth_image(8, 8, 0)
    blind, _ = script.noise_degrader((0, 55)).degrade(gt, np.random.default_rng(5))
    lq, _ = script._add_noise_and_level((0, 55), gt, np.random.default_rng(5))
    assert np.array_equal(lq[..., :3], blind)
    level = np.random.default_rng(5).uniform(0, 55)
    assert np.allclose(lq[..., 3], level / 50)


def test_a_conditioned_network_without_weights_for_the_level_is_the_blind_one(script, folder):
    study = script.read_config(folder / "study.toml", script.Study)
    _, _, config = next(script.trainings(study, ["all"]))
    ours = script.ConditionedStep(config, Processes(CPU)).optimization.averaged()
    theirs = script.SwinIR(config.network_config()).eval()
    theirs.load_state_dict(ours.state_dict(), strict=False)
    x = torch.rand(1, 3, 10, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        level = script.AtLevel(ours, 25)
        assert (level(x) - theirs(x)).abs().max() > 1e-4
        ours.conv_level.weight.zero_()
        torch.testing.assert_close(level(x), theirs(x))
