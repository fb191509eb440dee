"""Training for several tasks: turns, the parameters that a turn changes, exact resumption, adapters, and the file."""

import json
from pathlib import Path

import pytest
import torch
from training import CPU, assert_same_ending, configuration, rows, same

from swinir.cli.main import main
from swinir.models.multitask import BODY
from swinir.train.config import TrainConfig, read_config
from swinir.train.dataset import TaskStream
from swinir.train.distributed import Processes
from swinir.train.multitask import trainers
from swinir.train.multitask_config import MultiTaskConfig, Stage, joint_config, load_recipe
from swinir.train.optimizer import learning_rate
from swinir.weights.checkpoint import read_checkpoint, read_joint

TOML = """
name = "several"
[training]
log_every = 2
save_every = 2
ema = 0.9
seed = 3
[training.data]
train = "{images}"
patch = 16
batch = 2
[training.network]
embed_dim = 12
depths = [2]
num_heads = [2]
window_size = 8
img_range = 1.0
[training.optimizer]
lr = 2e-3
[training.schedule]
iterations = 4
[[tasks]]
name = "sr_x2"
task = "lightweight_sr"
scale = 2
[[tasks]]
name = "noise25"
task = "color_dn"
noise = 25
loss = {{ name = "charbonnier" }}
[[tasks]]
name = "jpeg10"
task = "color_jpeg_car"
jpeg = 10
loss = {{ name = "charbonnier" }}
"""
ADAPTERS = """
[adapters]
rank = 3
groups = {{ repair = ["noise25", "jpeg10"] }}
[adapters.training.schedule]
iterations = 2
"""
TASKS = ("sr_x2", "noise25", "jpeg10")


@pytest.fixture
def toml(images, tmp_path):
    """Write a configuration of three tasks, with or without adapters."""

    def write(text=TOML):
        path = tmp_path / "several.toml"
        path.write_text(text.format(images=images))
        return path

    return write


@pytest.fixture
def config(toml):
    """Four steps of each of three tasks."""
    return read_config(toml(), MultiTaskConfig)


def only(config, run):
    """The trainer of the first unfinished stage."""
    return next(trainers(config, run, processes=Processes(CPU)))


def fit(config, run):
    for trainer in trainers(config, run, processes=Processes(CPU)):
        trainer.resume()
        assert trainer.fit()


def parameters(trainer):
    return {name: p.detach().clone() for name, p in trainer.optimization.network.named_parameters()}


def test_a_tasks_turns_take_the_patches_that_its_experts_steps_take(config, tmp_path):
    stream = only(config, tmp_path / "joint").stream.batches(0, 0)
    turns = [next(stream) for _ in range(9)]
    for place, (name, expert) in enumerate(config.experts().items()):
        alone = TaskStream(expert, Processes(CPU))
        alone.load()
        for turn, batch in zip(range(3), alone.batches(0, 0), strict=False):
            assert same(turns[place + 3 * turn], batch), (name, turn)


def test_a_step_of_one_task_leaves_the_others_heads_and_tails_as_they_are(config, tmp_path):
    trainer = only(config, tmp_path / "run")
    stream = trainer.stream.batches(0, 0)
    for _ in range(4):  # so that every parameter has its moments
        trainer.train_on(next(stream))
    before, name = parameters(trainer), list(TASKS)[4 % 3]
    trainer.train_on(next(stream))
    changed = {key for key, value in parameters(trainer).items() if not torch.equal(value, before[key])}
    own = {key for key in before if key.startswith(f"experts.{name}.") and key.split(".")[2] not in BODY}
    ends = {key for key in before if key.split(".")[2] not in BODY}
    assert changed & ends == own
    assert {key.split(".")[2] for key in changed - ends} == set(BODY) - {"absolute_pos_embed"}


def test_a_run_that_was_stopped_anywhere_ends_with_the_same_bits(toml, tmp_path):
    config = read_config(toml(TOML + ADAPTERS), MultiTaskConfig, ["training.optimizer.name=muon"])
    fit(config, tmp_path / "whole")
    for at in (5, 12, 1, 3, 4):  # of the body's 12 steps, the 4 of the shared adapter, and the 2 of the other
        trainer = only(config, tmp_path / "parts")
        trainer.resume()
        trainer.fit(stop=lambda trainer=trainer, at=at: trainer.step == at)
        assert trainer.step == at
    fit(config, tmp_path / "parts")
    for stage in ("joint", "repair", "sr_x2"):
        assert_same_ending(tmp_path / "parts" / stage, tmp_path / "whole" / stage)
    found, expected = (read_joint(tmp_path / run / "several.pth") for run in ("parts", "whole"))
    assert same(found.state(), expected.state())


def test_an_adapters_training_changes_its_tasks_and_leaves_the_rest_as_it_is(toml, tmp_path):
    config = read_config(toml(TOML + ADAPTERS), MultiTaskConfig)
    file = tmp_path / "run" / "several.pth"
    states = []
    for trainer in trainers(config, tmp_path / "run", processes=Processes(CPU)):
        trainer.fit()
        states.append(read_joint(file).state())
    assert [path.name for path in sorted((tmp_path / "run").iterdir())] == ["joint", "repair", "several.pth", "sr_x2"]
    for before, after, own in zip(
        states, states[1:], (("tasks.noise25.", "tasks.jpeg10."), ("tasks.sr_x2.",)), strict=False
    ):
        assert {name for name in before if not torch.equal(before[name], after[name])} == {
            name for name in before if name.startswith(own)
        }
    facts = read_joint(file).facts
    assert [(facts[name]["adapter"], facts[name]["step"]) for name in TASKS] == [
        ("sr_x2", 2),
        ("repair", 2),
        ("repair", 2),
    ]
    assert sum(tensor.numel() for tensor in states[-1].values()) == config.parameters()


def test_a_task_is_added_to_the_file_of_an_earlier_run(config, tmp_path):
    fit(config, tmp_path / "first")
    old = tmp_path / "first" / "several.pth"
    task = config.tasks[1].model_copy(update={"name": "noise50", "noise": 50})
    more = {"name": "more", "weights": old, "tasks": [task], "training": config.training, "adapters": {"rank": 2}}
    fit(MultiTaskConfig.model_validate(more), tmp_path / "second")
    found = read_joint(tmp_path / "second" / "more.pth")
    assert list(found.facts) == [*TASKS, "noise50"]
    assert same(found.body, read_joint(old).body)
    wider = config.training | {"network": config.training["network"] | {"embed_dim": 16}}
    with pytest.raises(ValueError, match=r"several.pth has another body: .* make training.network that of the file"):
        fit(MultiTaskConfig.model_validate(more | {"training": wider}), tmp_path / "third")


def test_a_run_leaves_the_losses_and_the_configuration_of_each_task_and_one_file(config, tmp_path):
    trainer = only(config, tmp_path / "run")
    trainer.fit()
    found = rows(tmp_path / "run" / "joint")
    assert [row["step"] for row in found] == [2, 4, 6, 8, 10, 12]
    assert set(found[0]) & {f"loss_{name}" for name in TASKS} == {"loss_sr_x2", "loss_noise25"}
    experts = config.experts()
    stored = json.loads((tmp_path / "run" / "joint" / "config.json").read_text())
    assert stored["schedule"]["iterations"] == 12
    assert stored["tasks"] == {name: expert.model_dump(mode="json") for name, expert in experts.items()}
    averages = trainer.optimization.ema.averages
    for name, expert in experts.items():
        checkpoint = read_checkpoint(f"{tmp_path}/run/several.pth:{name}")
        assert (checkpoint.task, checkpoint.step, checkpoint.network) == (expert.task, 4, expert.network_config())
        for key, value in checkpoint.state.items():
            owner = "sr_x2" if key.split(".")[0] in BODY else name
            assert torch.equal(value, averages[f"experts.{owner}.{key}"])


def test_the_command_trains_all_stages_lists_them_and_starts_again_only_when_told_to(toml, tmp_path, capsys):
    words = ["train", "--config", str(toml(TOML + ADAPTERS)), "--run", str(tmp_path / "run"), "--device", "cpu"]
    assert main([*words, "--dry-run"]) == 0
    assert "repair: 4 iterations, noise25, jpeg10" in capsys.readouterr().out
    assert main(words) == 0
    assert "repair  step 4/4" in capsys.readouterr().out
    file = tmp_path / "run" / "several.pth"
    written = file.read_bytes()
    assert main(words) == 0
    assert " step " not in capsys.readouterr().out
    assert main([*words, "--fresh"]) == 0
    assert "joint  step 2/12" in capsys.readouterr().out
    assert file.read_bytes() == written
    assert main([*words, "--resume", "x.pt"]) == 2
    assert "a run of several trainings resumes by itself" in capsys.readouterr().err


def test_a_recipe_is_for_one_task_or_for_several(toml):
    assert isinstance(load_recipe(toml()), MultiTaskConfig)
    assert isinstance(load_recipe(Path(__file__).parents[2] / "configs" / "debug" / "tiny.toml"), TrainConfig)


def test_a_tasks_turns_have_the_learning_rates_of_its_experts_steps(toml):
    def schedules(**options):
        words = [f"training.schedule.{key}={value}" for key, value in options.items()]
        config = read_config(toml(), MultiTaskConfig, words)
        return joint_config(config.stages()[0]).schedule, config.experts()["sr_x2"].schedule

    joint, expert = schedules(iterations=8, milestones=[2, 3])
    rates = [learning_rate(joint, 1.0, step) for step in range(24)]
    assert rates == [learning_rate(expert, 1.0, step // 3) for step in range(24)]
    joint, _ = schedules(iterations=8, warmup=4)
    rates = [learning_rate(joint, 1.0, step) for step in range(14)]
    assert rates == pytest.approx([*((step + 1) / 12 for step in range(12)), 1, 1])


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"optimizer": {"lr": 1e-4}}, "need the same optimizer; sr_x2 and noise25 differ"),
        ({"data": {"patch": 24}}, "need the same data; sr_x2 and noise25 differ"),
        ({"seed": 4}, "need the same seed"),
    ],
)
def test_trainings_that_differ_in_more_than_their_task_are_refused(config, images, own, message):
    experts = config.experts()
    experts["noise25"] = configuration(images, **(experts["noise25"].model_dump() | own))
    with pytest.raises(ValueError, match=message):
        joint_config(Stage("joint", experts))


@pytest.mark.parametrize(
    ("text", "override", "message"),
    [
        (TOML, "training.init.weights=x.pth", r"takes no \[init\] of its own"),
        (TOML, "weights=x.pth", r"which needs \[adapters\]"),
        (TOML, "training.noise=3", r"training.noise is set by \[\[tasks\]\]; leave it out"),
        (TOML, "training.schedule.iteration=3", "the training of sr_x2: unknown key schedule.iteration"),
        (TOML + ADAPTERS, 'adapters.groups.sr=["sr_x3"]', "name each task once at most, got sr_x3"),
        (TOML + ADAPTERS, 'adapters.groups.sr=["noise25"]', "name each task once at most, got noise25"),
        (TOML + ADAPTERS, "adapters.rank=65", "adapters.rank: .*got 65"),
        (TOML + ADAPTERS, "adapters.ranks=4", "unknown key adapters.ranks; did you mean rank"),
        (TOML.replace("noise25", "sr_x2"), "name=x", "each task needs its own name, got sr_x2, sr_x2"),
        (TOML.replace("img_range = 1.0", ""), "name=x", "img_range is 1.0 for sr_x2 and 255.0 for jpeg10"),
    ],
)
def test_a_configuration_that_contradicts_itself_is_refused_in_one_line(toml, text, override, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_recipe(toml(text), [override])
    assert "\n" not in str(caught.value)


def test_adversarial_losses_are_refused(toml):
    with pytest.raises(ValueError, match="no discriminator"):
        load_recipe(toml(TOML.replace('name = "charbonnier"', "adversarial = {{ }}")))


def test_a_state_of_another_rank_is_refused(toml, tmp_path):
    path = toml(TOML + ADAPTERS)
    fit(read_config(path, MultiTaskConfig), tmp_path / "run")
    other = only(read_config(path, MultiTaskConfig, ["adapters.rank=2"]), tmp_path / "run")
    with pytest.raises(ValueError, match="belongs to another network"):
        other.resume()
