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
from swinir.reproduce.joint_plan import KINDS, ORDER, JointExperiment
from swinir.reproduce.joint_results import joint_table
from swinir.tasks import get_task
from swinir.testsets import BENCHMARK_SETS
from swinir.train.config import read_config
from swinir.train.distributed import Processes
from swinir.train.multitask_config import TaskConfig, joint_config

CONFIGS = Path(__file__).parents[2] / "configs" / "joint"
TOML = """
name = "small"
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
[training.schedule]
iterations = 2
[adapters]
rank = 4
[adapters.groups]
both = ["sr", "jpeg"]
[[tasks]]
name = "sr"
task = "lightweight_sr"
scale = 2
[[tasks]]
name = "jpeg"
task = "color_jpeg_car"
jpeg = 10
[experiment]
seeds = [5]
rank = 2
tolerance = 0.05
benchmarks = {{ sr = "Set5", jpeg = "Set5" }}
[experiment.narrow]
embed_dim = 12
mlp_ratio = 3.0
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
    found = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    assert [(row["seed"], row["kind"], row["task"]) for row in found] == [
        (5, kind, task) for kind in ORDER for task in ("sr", "jpeg")
    ]
    for row in found:
        record = json.loads((run / "seed5" / f"{row['kind']}_{row['task']}.json").read_text())
        assert row["score"] == pytest.approx(np.mean([r[row["metric"]] for r in record["images"]]), abs=1e-4)
        assert len(record["images"]) == 5
    assert "| task | set | untreated | joint | joint + adapters |" in (run / "table.md").read_text()
    assert re.search(r"^sr +Set5, PSNR on Y", out, re.M)
    the_tester_finds_the_same_scores(run / "seed5", testsets)
    written = times(run)
    assert len(written) == 8  # the body, three files for both tasks, and four for one
    assert command()[0] == 0
    assert times(run) == written


def the_tester_finds_the_same_scores(folder, testsets):
    """`swinir test` runs the network of each task."""
    for task, words, lq in (
        ("sr", ["lightweight_sr", "--scale", "2"], testsets / "Set5" / "LR_bicubic" / "X2"),
        ("jpeg", ["color_jpeg_car", "--jpeg", "10"], None),
    ):
        weights, found = folder / "adapters" / f"adapters.pth:{task}", folder / "tester.json"
        options = ["--folder_gt", str(testsets / "Set5" / "HR"), "--model_path", str(weights), "--no_save"]
        options += ["--json", str(found), *(["--folder_lq", str(lq)] if lq else [])]
        assert main(["test", "--task", *words, "--device", "cpu", *options]) == 0
        ours = json.loads((folder / f"adapters_{task}.json").read_text())
        assert json.loads(found.read_text())["means"] == ours["means"]


def test_an_experiment_that_was_stopped_anywhere_ends_with_the_same_scores(config, testsets, tmp_path):
    experiment = read_config(config, JointExperiment)

    def run_to_end(folder, stops):
        for count in range(40):
            asked = iter([False] * stops)
            run = JointRun(folder, testsets, Processes(CPU), stop=lambda asked=asked: next(asked, True), limit=1)
            if results := run_experiment(experiment, run):
                return [(row["kind"], row["task"], row["score"]) for row in results], count
        raise AssertionError("never ended")

    whole, none = run_to_end(tmp_path / "whole", 1000)
    parts, several = run_to_end(tmp_path / "parts", 9)
    assert (none, several > 3) == (0, True)
    assert parts == whole


def test_a_signal_stops_with_its_exit_code(command, monkeypatch):
    plain = joint_measure.train

    def interrupted(*arguments):
        signal.raise_signal(signal.SIGINT)
        return plain(*arguments)

    monkeypatch.setattr(joint_measure, "train", interrupted)
    code, out, _ = command()
    assert (code, out.splitlines()[-1]) == (130, "stopped; run the same command to resume")


def test_a_folder_of_another_experiment_is_refused_and_further_seeds_are_not(config, tmp_path):
    experiment = read_config(config, JointExperiment)
    claim(experiment, tmp_path / "run")
    more = experiment.experiment.model_copy(update={"seeds": (5, 6)})
    claim(experiment.model_copy(update={"experiment": more}), tmp_path / "run")
    with pytest.raises(ValueError, match=r"holds another experiment \(name differ\); choose another -o"):
        claim(experiment.model_copy(update={"name": "other"}), tmp_path / "run")


def test_a_set_without_references_is_refused(config, tmp_path):
    folder = tmp_path / "RealSRSet+5images"
    folder.mkdir()
    write(folder / "a.png", np.zeros((8, 8, 3), np.uint8))
    experiment = read_config(config, JointExperiment, [f'experiment.benchmarks.sr="{folder.name}"'])
    task = TaskConfig(name="sr", task="classical_sr", scale=4)
    with pytest.raises(ValueError, match=r"RealSRSet\+5images has no references to measure by"):
        benchmark_samples(experiment, task, tmp_path)


def test_a_set_that_is_not_whole_is_refused_before_any_training(command, testsets, tmp_path):
    (testsets / "Set5" / "HR" / "000.png").unlink()
    code, out, err = command()
    assert (code, out) == (2, "")
    assert re.search(r"Set5/HR holds 4 images, Set5 has 5", err)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("training.log_every=3", "training.log_every must divide the steps of a task, 2 of the body and 2 of its"),
        ("experiment.narrow.embed_dim=24", "parameters together, the joint network with its adapters"),
        ("experiment.tolerance=0.0001", "more than 0.0% apart; change experiment.narrow.embed_dim or mlp_ratio"),
        ("training.network.window_sise=8", "the training of sr: unknown network option 'window_sise'"),
        ("training.seed=1", "training.seed is set by experiment.seeds; leave it out"),
        ("weights=x.pth", "the experiment trains the body itself; leave weights out"),
        ("nane=x", "unknown key nane; did you mean name"),
        ("experiment.seeds=[]", "experiment.seeds: "),
        ("experiment.benchmarks.jpeg=Set55", "unknown benchmark 'Set55'; choose one of Set5, "),
        ("experiment.benchmarks.x4=Set5", "experiment.benchmarks needs a set for each task, sr, jpeg"),
    ],
)
def test_a_configuration_that_contradicts_itself_is_refused_in_one_line(config, change, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_config(config, JointExperiment, [change])
    assert "\n" not in str(caught.value)


def test_a_range_of_scales_is_refused(config):
    config.write_text(config.read_text().replace("scale = 2", "scale = [1, 4]"))
    with pytest.raises(ValueError, match=r"needs one scale a task, got \[1.0, 4.0\] for sr"):
        read_config(config, JointExperiment)


def test_an_unknown_scale_is_refused_with_those_there_are(capsys, monkeypatch):
    monkeypatch.chdir(CONFIGS.parents[1])
    assert main(["reproduce", "joint", "--scale", "gpu"]) == 2
    assert "--scale must be one of cpu, full, got 'gpu'" in capsys.readouterr().err


@pytest.mark.parametrize("scale", ["cpu", "full"])
def test_equal_parameters_and_equal_steps_are_what_the_configuration_says(scale):
    experiment = read_config(CONFIGS / f"{scale}.toml", JointExperiment)
    counts = {kind: experiment.count(kind) for kind in KINDS}
    assert abs(counts["narrow"] / counts["adapters"] - 1) <= experiment.experiment.tolerance
    assert max(counts["adapters"], counts["groups"]) <= 0.4 * counts["experts"]
    steps = {
        kind: [joint_config(stage).schedule.iterations for config in of_several(experiment, kind) for stage in config]
        for kind in ("joint", "adapters", "groups")
    }
    assert {sum(found) for found in steps.values()} == {len(experiment.tasks) * experiment.share}
    for kind in ("experts", "narrow"):
        alone = [training.config.schedule.iterations for training in experiment.trainings(kind, 0, Path())]
        assert alone == [experiment.share] * len(experiment.tasks)
    header = (CONFIGS / f"{scale}.toml").read_text().split("\n\n")[0]
    for count in counts.values():
        assert f"{count / 1e6:.1f}M" in header or f"{count:,}" in header


def of_several(experiment, kind):
    """The stages of the trainings of a kind for several tasks."""
    return [training.config.stages() for training in experiment.trainings(kind, 0, Path())]


def test_the_table_gives_means_and_half_the_range_over_the_seeds_and_tasks_near_the_experts():
    scores = {"joint": (30.0, 30.5), "adapters": (30.9, 31.0), "experts": (31.0, 31.0), "narrow": (29.0,)}
    fixed = {"task": "sr_x2", "benchmark": "Set5", "metric": "psnr_y", "untreated": 33.658, "parameters": 1000}
    rows = [
        fixed | {"seed": seed, "kind": kind, "score": score, "seconds": 10.0 * seed}
        for kind, found in scores.items()
        for seed, score in enumerate(found, 1)
    ]
    lines = joint_table(rows).markdown().splitlines()
    assert lines[2:] == [
        "| sr_x2 | Set5, PSNR on Y | 33.66 | 30.25 ± 0.25 | 30.95 ± 0.05 |  | 31.00 ± 0.00 | 29.00 |",
        "| at most 0.05 dB below the experts |  |  | 0 of 1 | 1 of 1 |  | 1 of 1 | 0 of 1 |",
        "| parameters |  |  | 1,000 | 1,000 |  | 1,000 | 1,000 |",
        "| seconds of training |  |  | 15 | 15 |  | 15 | 10 |",
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
