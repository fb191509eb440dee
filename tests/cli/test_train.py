"""The training command as a user meets it: words in; text, files and an exit code out."""

import json
import math
import re

import pytest
import torch
from forks import Beside
from training import NAMES, rows

from swinir.cli.main import main
from swinir.locks import FolderLock
from swinir.train.dataset import TrainingSamples
from swinir.weights.checkpoint import read_checkpoint
from swinir.weights.verify import sha256

TOML = """
name = "small"
task = "lightweight_sr"
scale = 2
log_every = 2
save_every = 3
validate_every = 4
[data]
train = "{images}"
patch = 16
batch = 1
holdout = 1
[schedule]
iterations = 6
[network]
embed_dim = 12
depths = [2]
num_heads = [2]
"""


@pytest.fixture
def command(images, tmp_path, capsys, monkeypatch):
    """Runs the command; gives its exit code and the lines of both streams."""
    path = tmp_path / "x.toml"
    path.write_text(TOML.format(images=images))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SWINIR_DEBUG", raising=False)

    def run(*words, config=path):
        code = main(["train", "--config", str(config), "--device", "cpu", *words])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return run


def test_the_command_trains_and_says_how_far_it_is(command, tmp_path):
    code, out, err = command()
    assert (code, err) == (0, [])
    pace = r"\d+\.\d\d it/s  waiting for data \d+%"
    pattern = rf"step (\d)/6  loss 0\.\d{{5}}  lr 2\.00e-04  {pace}  \d+\.\d images/s  0:00:\d\d left"
    assert [match[1] for line in out if (match := re.fullmatch(pattern, line))] == ["2", "4", "6"]
    (validation,) = (line for line in out if "validation" in line)
    number = r"\d+\.\d{4}"
    assert re.fullmatch(
        rf"step 4/6  validation  PSNR {number}  PSNR_Y {number}  SSIM 0\.\d{{4}}  SSIM_Y 0\.\d{{4}}", validation
    )
    path = tmp_path / "runs" / "small" / "small.pth"
    assert re.fullmatch(f"6 iterations  {pace}", out[-2])
    assert out[-1].endswith(f"small.pth: {path.stat().st_size:,} bytes, SHA-256 {sha256(path)}")
    assert {p.name for p in path.parent.iterdir()} == {
        "config.json",
        "metrics.jsonl",
        "run.json",
        "small.pth",
        "small_best.pth",
        "states",
        "train.log",
    }


def test_the_same_command_resumes_a_chosen_state_is_resumed_from_and_fresh_starts_again(command, tmp_path):
    run = tmp_path / "run"
    command("--run", str(run))
    code, out, _ = command("--run", str(run), "--set", "schedule.iterations=8")
    assert code == 0
    assert out[0].startswith(f"resuming at step 6 from {run / 'states' / 'step-00000006-'}")
    assert read_checkpoint(run / "small.pth").step == 8
    assert [row["step"] for row in rows(run) if "loss" in row] == [2, 4, 6, 8]
    (state,) = (run / "states").glob("step-00000006-*")
    code, out, _ = command("--run", str(run), "--resume", str(state))
    assert (code, out[0]) == (0, f"resuming at step 6 from {state}")
    assert len(list((run / "states" / "abandoned").iterdir())) >= 1
    code, out, _ = command("--run", str(run), "--fresh", "--set", "schedule.iterations=2")
    assert code == 0
    assert not any("resuming" in line for line in out)
    assert read_checkpoint(run / "small.pth").step == 2
    assert [row["step"] for row in rows(run)] == [2]
    (state,) = (run / "states").glob("*.pt")
    assert state.name.startswith("step-00000002")


def test_a_dry_run_prints_everything_and_writes_nothing(command, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    code, out, err = command("--dry-run", "--set", "data.cache=cache")
    assert (code, err) == (0, [])
    end = out.index("}")
    config = json.loads("\n".join(out[: end + 1]))
    assert config["schedule"]["iterations"] == 6
    assert config["optimizer"]["betas"] == [0.9, 0.999]
    assert config["data"]["cache"] == "cache"
    assert re.fullmatch(r"parameters: \d+,\d{3}", out[end + 1])
    assert out[end + 2] == f"images: {len(NAMES) - 1} to train on (0.0 megapixels), 1 held out, 1 to validate on"
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "data.pach=3"], "unknown key data.pach; did you mean patch?"),
        (["--set", "data.train=nowhere"], "training folder not found: nowhere"),
        (["--set", "data.holdout=5"], "data.holdout must leave images to train on, got 5 of 5"),
        (["--set", "init.weights=nonsense"], "nonsense: no such file"),
        (["--resume", "nowhere.pt"], "nowhere.pt"),
        (["--set", "data.patch=32"], "is smaller than a patch of 64 pixels"),
        (["--device", "nonsense"], "device 'nonsense' is unknown; choose cpu"),
        (["--fresh", "--resume", "x"], "--fresh and --resume x exclude each other; give one of them"),
        (["--dry-run", "--set", "data.holdout=5"], "data.holdout must leave images to train on, got 5 of 5"),
    ],
)
def test_mistakes_are_one_line_and_leave_no_folder(command, tmp_path, words, message):
    code, out, err = command(*words)
    assert code == 2, (out, err)
    (line,) = (line for line in err if "loading images" not in line)
    assert line.startswith("swinir: ")
    assert message in line
    assert not (tmp_path / "runs").exists()


def test_a_missing_configuration_and_unknown_words_are_refused(command, tmp_path):
    code, _, err = command(config=tmp_path / "nowhere.toml")
    assert (code, len(err)) == (2, 1)
    assert "no configuration at" in err[0]
    assert command("--nonsense")[0] == 2


def test_a_damaged_state_is_warned_of_and_the_log_tells(command, tmp_path, caplog):
    command()
    (state,) = (tmp_path / "runs" / "small" / "states").glob("step-00000006-*")
    state.write_bytes(b"")
    code, out, _ = command()
    assert code == 0
    assert "resuming at step 4 from" in out[0]
    (message,) = caplog.messages
    assert f"{state.name}: is empty; resuming from step-00000004" in message.replace(str(tmp_path) + "/", "")
    assert message in (tmp_path / "runs" / "small" / "train.log").read_text()


def test_a_pixel_that_is_not_finite_ends_the_run_with_a_line_and_its_batch(command, tmp_path, monkeypatch):
    plain = TrainingSamples.__getitem__

    def spoiled(samples, key):
        lq, gt = (tensor.float() / 255 for tensor in plain(samples, key))
        return (lq * math.nan if key[0] == 4 else lq), gt

    monkeypatch.setattr(TrainingSamples, "__getitem__", spoiled)
    code, _, err = command()
    assert code == 1
    (line,) = err
    (path,) = (tmp_path / "runs" / "small").glob("not_finite_*.pt")
    assert re.fullmatch(rf"Error: step 4: not finite: loss nan; .*; the batch is in .*{path.name}", line)
    content = torch.load(path, weights_only=True)
    assert content["step"] == 4
    assert content["parts"][0]["lq"].isnan().all()


def test_recipes_are_listed_with_results_and_hardware(command, capsys):
    assert main(["train", "--list"]) == 0
    text = capsys.readouterr().out
    assert re.search(
        r"^lightweight_sr/tiny_x2\n  A tiny model .*\n  expect: 37\.30 dB .*\n  hardware: two CPU", text, re.M
    )
    assert "ablations/cpu" not in text  # of another command


def test_a_recipe_is_found_by_its_name(command, tmp_path):
    code, out, err = command("--dry-run", config="debug/tiny")
    assert (code, err) == (0, [])
    assert out[-1] == "images: 4 to train on (1.0 megapixels), 1 held out, 1 to validate on"
    code, _, err = command(config="tiny_x9")
    assert (code, "did you mean" in err[0], "`swinir train --list` lists" in err[0]) == (2, True, True)


def test_no_recipe_is_refused_with_the_way_to_one(capsys):
    assert main(["train"]) == 2
    assert "--list lists them" in capsys.readouterr().err


def test_a_dry_run_looks_at_the_files(command, images, tmp_path):
    (images / NAMES[1]).write_bytes(b"nothing")
    code, _, err = command("--dry-run")
    assert (code, NAMES[1] in err[0]) == (2, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--set", "data.train=nowhere"],
            "put the images there, or train on any folder of photographs by --set data.train=",
        ),
        (
            ["--set", "data.holdout=0", "--set", "data.validate_gt=testsets/Set5/HR"],
            "validation folder not found: testsets/Set5/HR; run `swinir data prepare Set5 FOLDER_OR_ARCHIVE`",
        ),
    ],
)
def test_a_missing_folder_is_refused_with_the_command_that_makes_it(command, words, message):
    code, _, (line,) = command(*words)
    assert code == 2
    assert message in line


def test_a_run_folder_takes_one_training_at_a_time(command, tmp_path, monkeypatch):
    (tmp_path / "runs" / "small").mkdir(parents=True)

    def hold():
        lock = FolderLock(tmp_path / "runs" / "small")
        lock.hold()
        return lock

    other = Beside(hold)
    with monkeypatch.context() as patch:
        patch.setattr("swinir.train.trainer.TaskStream.load", lambda *_: pytest.fail("images were loaded"))
        code, _, (line,) = command("--fresh")
    assert code == 2
    assert f"runs/small is in use by process {other.process} on " in line
    assert "name another folder" in line
    other.kill()
    assert command()[0] == 0
