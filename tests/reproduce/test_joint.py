"""The joint experiment: its configuration, trainings, measurements and table."""

import json
import re
import signal
from pathlib import Path

import numpy as np
import pytest
from reproductions import write_sets
from training import CPU, write_images

from swinir.cli.main import main
from swinir.evaluation.evaluate import evaluate
from swinir.evaluation.protocol import Protocol, check_network
from swinir.evaluation.results import means
from swinir.evaluation.samples import find_samples
from swinir.image_io.image import write
from swinir.inference.external import Bicubic
from swinir.models.swinir import NetworkConfig
from swinir.reproduce import joint_measure
from swinir.reproduce.joint_measure import JointRun, benchmark_samples, claim, run_experiment
from swinir.reproduce.joint_plan import KINDS, JointExperiment, JointTask
from swinir.reproduce.joint_results import joint_table
from swinir.tasks import get_task
from swinir.testsets import BENCHMARK_SETS
from swinir.train.config import read_config
from swinir.train.distributed import Processes

CONFIGS = Path(__file__).parents[2] / "configs" / "joint"
TOML = """
steps = 8
seeds = [5]
tolerance = 0.05
[training]
ema = 0.9
log_every = 2
[training.data]
train = "{images}"
patch = 16
batch = 1
[training.network]
embed_dim = 16
depths = [2]
num_heads = [2]
window_size = 8
img_range = 1.0
[narrow]
embed_dim = 12
num_heads = [1]
[[tasks]]
name = "sr"
task = "lightweight_sr"
scale = 2
benchmark = "Set5"
[[tasks]]
name = "jpeg"
task = "color_jpeg_car"
jpeg = 10
benchmark = "Set5"
"""


@pytest.fixture
def testsets(tmp_path):
    return write_sets(tmp_path / "sets", "Set5")


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(TOML.format(images=write_images(tmp_path / "pictures")))
    return path


@pytest.fixture
def command(config, testsets, tmp_path, capsys, monkeypatch):
    """Runs the command; gives its exit code and both streams."""
    monkeypatch.delenv("SWINIR_DEBUG", raising=False)

    def run(*words):
        options = ["--config", str(config), "--testsets", str(testsets), "-o", str(tmp_path / "run")]
        code = main(["reproduce", "joint", *options, "--device", "cpu", *words])
        return code, *capsys.readouterr()

    return run


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.pth")}


def test_the_command_trains_measures_and_prints_a_table_once(command, testsets, tmp_path):
    run = tmp_path / "run"
    code, out, err = command()
    assert (code, err) == (0, "")
    results = json.loads((run / "results.json").read_text())
    assert [task["name"] for task in results["tasks"]] == ["sr", "jpeg"]
    for task in results["tasks"]:
        for kind in KINDS:
            rows = json.loads((run / "seed5" / f"{kind}_{task['name']}.json").read_text())
            assert task["scores"][kind]["5"] == pytest.approx(np.mean([r[task["metric"]] for r in rows["images"]]))
            assert len(rows["images"]) == 5
    assert "| steps |  |  | 8 | 2 x 4 | 2 x 4 |" in (run / "table.md").read_text()
    assert re.search(r"^steps +8 +2 x 4 +2 x 4$", out, re.M)
    the_tester_finds_the_same_scores(run / "seed5", testsets)
    written = times(run)
    assert len(written) == 6
    assert command()[0] == 0
    assert times(run) == written


def the_tester_finds_the_same_scores(folder, testsets):
    """`swinir test` runs the exported joint network of each task."""
    for task, words, lq in (
        ("sr", ["lightweight_sr", "--scale", "2"], testsets / "Set5" / "LR_bicubic" / "X2"),
        ("jpeg", ["color_jpeg_car", "--jpeg", "10"], None),
    ):
        weights, found = folder / "joint" / f"joint_{task}.pth", folder / "tester.json"
        options = ["--folder_gt", str(testsets / "Set5" / "HR"), "--model_path", str(weights), "--no_save"]
        options += ["--json", str(found), *(["--folder_lq", str(lq)] if lq else [])]
        assert main(["test", "--task", *words, "--device", "cpu", *options]) == 0
        ours = json.loads((folder / f"joint_{task}.json").read_text())
        assert json.loads(found.read_text())["means"] == ours["means"]


def test_an_experiment_that_was_stopped_anywhere_ends_with_the_same_scores(config, testsets, tmp_path):
    experiment = read_config(config, JointExperiment)

    def run_to_end(folder, stops):
        for count in range(40):
            asked = iter([False] * stops)
            run = JointRun(folder, testsets, Processes(CPU), stop=lambda asked=asked: next(asked, True), limit=2)
            if results := run_experiment(experiment, run):
                return results["tasks"], count
        raise AssertionError("never ended")

    whole, none = run_to_end(tmp_path / "whole", 1000)
    parts, several = run_to_end(tmp_path / "parts", 7)
    assert (none, several > 3) == (0, True)
    assert parts == whole


def test_a_signal_stops_with_its_exit_code(command, monkeypatch):
    plain = joint_measure.train_experts

    def interrupted(*arguments):
        signal.raise_signal(signal.SIGINT)
        return plain(*arguments)

    monkeypatch.setattr(joint_measure, "train_experts", interrupted)
    code, out, _ = command()
    assert (code, out.splitlines()[-1]) == (130, "stopped; run the same command to resume")


def test_a_folder_of_another_experiment_is_refused_and_further_seeds_are_not(config, tmp_path):
    experiment = read_config(config, JointExperiment)
    claim(experiment, tmp_path / "run")
    claim(experiment.model_copy(update={"seeds": (5, 6)}), tmp_path / "run")
    with pytest.raises(ValueError, match=r"holds another experiment \(steps differ\); choose another -o"):
        claim(experiment.model_copy(update={"steps": 16}), tmp_path / "run")


def test_a_set_without_references_is_refused(tmp_path):
    folder = tmp_path / "RealSRSet+5images"
    folder.mkdir()
    write(folder / "a.png", np.zeros((8, 8, 3), np.uint8))
    task = JointTask(name="x4", task="classical_sr", scale=4, benchmark=folder.name)
    with pytest.raises(ValueError, match=r"RealSRSet\+5images has no references to measure by"):
        benchmark_samples(task, tmp_path)


def test_a_set_that_is_not_whole_is_refused_before_any_training(command, testsets, tmp_path):
    (testsets / "Set5" / "HR" / "000.png").unlink()
    code, out, err = command()
    assert (code, out) == (2, "")
    assert re.search(r"Set5/HR holds 4 images, Set5 has 5", err)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("steps=7", "steps must be a multiple of the 2 tasks, got 7"),
        ("training.log_every=3", "training.log_every must divide the 4 steps of a task, got 3"),
        ("narrow.embed_dim=13", "parameters together, the joint network"),
        ("tolerance=0.0001", "more than 0.0% apart; change narrow.embed_dim or narrow.mlp_ratio"),
        ("training.network.window_sise=8", "the training of sr: unknown network option 'window_sise'"),
        ("training.patches=8", "the training of sr: unknown key patches"),
        ("training.seed=1", r"training.seed is set by \[\[tasks\]\] and seeds"),
        ("training.init.weights=x.pth", r"leave out \[init\]"),
        ("stepps=8", "unknown key stepps; did you mean steps"),
        ("seeds=[]", "seeds: "),
    ],
)
def test_a_configuration_that_contradicts_itself_is_refused_in_one_line(config, change, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_config(config, JointExperiment, [change])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "jpeg"', 'name = "sr"', "each task needs its own name, got sr, sr"),
        ('benchmark = "Set5"\n[[', 'benchmark = "Set55"\n[[', "unknown benchmark 'Set55'; choose one of Set5, "),
        ("jpeg = 10", "quality = 10", r"unknown key tasks\.1\.quality"),
        ('task = "lightweight_sr"', 'task = "light_sr"', "the training of sr: .*unknown task 'light_sr'"),
        ("img_range = 1.0", "", "img_range is 1.0 for sr and 255.0 for jpeg"),
    ],
)
def test_tasks_that_cannot_be_are_refused_in_one_line(config, old, new, message):
    text = config.read_text()
    assert text.count(old) == 1
    config.write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=message) as caught:
        read_config(config, JointExperiment)
    assert "\n" not in str(caught.value)


def test_an_unknown_scale_is_refused_with_those_there_are(capsys, monkeypatch):
    monkeypatch.chdir(CONFIGS.parents[1])
    assert main(["reproduce", "joint", "--scale", "gpu"]) == 2
    assert "--scale must be one of cpu, full, got 'gpu'" in capsys.readouterr().err


@pytest.mark.parametrize("scale", ["cpu", "full"])
def test_equal_parameters_and_equal_steps_are_what_the_configuration_says(scale):
    experiment = read_config(CONFIGS / f"{scale}.toml", JointExperiment)
    joint, experts, narrow = (experiment.parameters(kind) for kind in KINDS)
    assert abs(narrow / joint - 1) <= 0.01
    assert 3 < experts / joint < 4
    for kind in ("experts", "narrow"):
        trainings = experiment.experts(kind, 0)
        assert sum(config.schedule.iterations for config in trainings.values()) == experiment.steps
        assert len({config.schedule.iterations for config in trainings.values()}) == 1
    header = (CONFIGS / f"{scale}.toml").read_text().split("\n\n")[0]
    for count in (joint, experts, narrow):
        assert f"{count / 1e6:.1f}M" in header or f"{count:,}" in header


def test_the_table_gives_means_and_half_the_range_over_the_seeds():
    scores = {"joint": {"1": 30.0, "2": 30.5}, "experts": {"1": 31.0, "2": 31.0}, "narrow": {"1": 29.0, "2": 28.9}}
    task = {"name": "sr_x2", "benchmark": "Set5", "metric": "psnr_y", "untreated": 33.658, "scores": scores}
    results = {
        "tasks": [task],
        "parameters": {"joint": 1000, "experts": 4000, "narrow": 1010},
        "seconds": {kind: {"1": 10.0, "2": 20.0} for kind in KINDS},
        "steps_of_each_task": 500,
    }
    lines = joint_table(results).markdown().splitlines()
    assert lines[2] == "| sr_x2 | Set5, PSNR on Y | 33.66 | 30.25 ± 0.25 | 31.00 ± 0.00 | 28.95 ± 0.05 |"
    assert lines[3:] == [
        "| parameters |  |  | 1,000 | 4,000 | 1,010 |",
        "| steps |  |  | 500 | 1 x 500 | 1 x 500 |",
        "| seconds of training |  |  | 15 | 15 | 15 |",
    ]


# The tester, and the input without restoration


def test_an_expert_of_another_range_is_taken_for_its_task_only_if_its_file_says_so():
    protocol, network = Protocol(get_task("color_jpeg_car"), jpeg=10), NetworkConfig()
    check_network(network, protocol, "x.pth", stated="color_jpeg_car")
    for stated in (None, "color_dn"):
        with pytest.raises(ValueError, match=r"its image range is 1\.0, the task needs 255\.0"):
            check_network(network, protocol, "x.pth", stated=stated)


@pytest.mark.parametrize(("scale", "published"), [(2, 33.66), (3, 30.39), (4, 28.42)])
def test_bicubic_enlargement_of_set5_is_worth_what_is_published(public_folder, scale, published):
    root = public_folder("testsets")
    row = BENCHMARK_SETS["Set5"]
    protocol = Protocol(get_task("lightweight_sr"), scale=scale)
    samples = find_samples(protocol, row.lq_folder(root, scale), row.gt_folder(root))
    assert means(list(evaluate(Bicubic(3, scale), samples, protocol)))["psnr_y"] == pytest.approx(published, abs=0.02)


def test_untreated_noise_is_worth_its_level(tmp_path):
    write(tmp_path / "grey.png", np.full((64, 64, 3), 128, np.uint8))
    protocol = Protocol(get_task("color_dn"), noise=10)
    (row,) = evaluate(Bicubic(3, 1), find_samples(protocol, None, tmp_path), protocol)
    assert row.psnr == pytest.approx(20 * np.log10(255 / 10), abs=0.15)
