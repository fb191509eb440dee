"""Joint training: turns of the tasks, the parameters that a turn changes, exact resumption, exported networks."""

import json

import pytest
import torch
from training import CPU, assert_same_ending, configuration, rows, same

from swinir.models.multitask import BODY
from swinir.train.dataset import TaskStream
from swinir.train.distributed import Processes
from swinir.train.multitask import joint_config
from swinir.train.multitask import joint_trainer as make_trainer
from swinir.train.optimizer import learning_rate
from swinir.weights.checkpoint import load_model, read_checkpoint

NETWORK = {"embed_dim": 12, "depths": [2], "num_heads": [2], "window_size": 8, "img_range": 1.0}
CHARBONNIER = {"name": "charbonnier"}
TASKS = {
    "sr_x2": {"scale": 2},
    "noise25": {"task": "color_dn", "scale": 1, "noise": 25, "loss": CHARBONNIER},
    "jpeg10": {"task": "color_jpeg_car", "scale": 1, "jpeg": 10, "loss": CHARBONNIER},
}


def experts(images, **options):
    """Four steps of each of three tasks; options are those of `configuration`."""
    shared = {"schedule": {"iterations": 4}, "network": NETWORK, "log_every": 2, "save_every": 1000} | options
    return {name: configuration(images, name=name, **(shared | task)) for name, task in TASKS.items()}


def joint_trainer(configs, run):
    return make_trainer(configs, run, processes=Processes(CPU))


def parameters(trainer):
    return {name: p.detach().clone() for name, p in trainer.optimization.network.named_parameters()}


def test_a_tasks_turns_take_the_patches_that_its_experts_steps_take(images, tmp_path):
    configs = experts(images)
    stream = joint_trainer(configs, tmp_path / "joint").stream.batches(0, 0)
    turns = [next(stream) for _ in range(9)]
    for place, (name, config) in enumerate(configs.items()):
        alone = TaskStream(config, Processes(CPU))
        alone.load()
        for turn, batch in zip(range(3), alone.batches(0, 0), strict=False):
            assert same(turns[place + 3 * turn], batch), (name, turn)


def test_a_step_of_one_task_leaves_the_others_heads_and_tails_as_they_are(images, tmp_path):
    trainer = joint_trainer(experts(images), tmp_path / "run")
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


def test_a_run_that_was_stopped_at_every_tasks_turn_ends_with_the_same_bits(images, tmp_path):
    configs = experts(images, save_every=2)
    assert joint_trainer(configs, tmp_path / "whole").fit()
    for at in (4, 5, 9, 12):
        trainer = joint_trainer(configs, tmp_path / "parts")
        assert bool(trainer.resume()) == (at > 4)
        assert trainer.fit(stop=lambda trainer=trainer, at=at: trainer.step == at) == (at == 12)
        assert trainer.step == at
    assert_same_ending(tmp_path / "parts", tmp_path / "whole")


def test_a_run_leaves_the_losses_and_the_configuration_of_each_task_and_an_ordinary_network_for_it(images, tmp_path):
    configs = experts(images, log_every=6)
    trainer = joint_trainer(configs, tmp_path / "run")
    trainer.fit()
    found = rows(tmp_path / "run")
    assert [row["step"] for row in found] == [6, 12]
    for row in found:
        assert row["loss"] == pytest.approx(sum(row[f"loss_{name}"] for name in TASKS) / 3)
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert stored["schedule"]["iterations"] == 12
    assert stored["tasks"] == {name: config.model_dump(mode="json") for name, config in configs.items()}
    bodies = []
    for name, config in configs.items():
        path = tmp_path / "run" / f"joint_{name}.pth"
        checkpoint = read_checkpoint(path)
        assert (checkpoint.task, checkpoint.step, checkpoint.network) == (config.task, 12, config.network_config())
        state = load_model(path, device="cpu").state_dict()
        bodies.append({key: value for key, value in state.items() if key.startswith(BODY)})
        for key, value in checkpoint.state.items():
            owner = "sr_x2" if key.split(".")[0] in BODY else name
            assert torch.equal(value, trainer.optimization.ema.averages[f"experts.{owner}.{key}"])
    assert same(bodies[0], bodies[1])
    assert same(bodies[0], bodies[2])


def test_a_tasks_turns_have_the_learning_rates_of_its_experts_steps(images):
    configs = experts(images, schedule={"iterations": 8, "milestones": [2, 3]})
    joint, expert = joint_config(configs).schedule, configs["sr_x2"].schedule
    rates = [learning_rate(joint, 1.0, step) for step in range(24)]
    assert rates == [learning_rate(expert, 1.0, step // 3) for step in range(24)]
    joint = joint_config(experts(images, schedule={"iterations": 8, "warmup": 4})).schedule
    rates = [learning_rate(joint, 1.0, step) for step in range(14)]
    assert rates == pytest.approx([*((step + 1) / 12 for step in range(12)), 1, 1])


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"optimizer": {"lr": 1e-4}}, "need the same optimizer; sr_x2 and noise25 differ"),
        ({"data": {"patch": 24}, "network": NETWORK}, "need the same data; sr_x2 and noise25 differ"),
        ({"seed": 4}, "need the same seed"),
    ],
)
def test_trainings_that_differ_in_more_than_their_task_are_refused(images, own, message):
    configs = experts(images)
    options = {"schedule": {"iterations": 4}, "network": NETWORK, "log_every": 2} | TASKS["noise25"] | own
    configs["noise25"] = configuration(images, name="noise25", **options)
    with pytest.raises(ValueError, match=message):
        joint_config(configs)


def test_initial_weights_and_discriminators_are_refused(images):
    with pytest.raises(ValueError, match=r"leave out \[init\]"):
        joint_config(experts(images, init={"weights": "x.pth"}))
    adversarial = {"name": "l1", "adversarial": {}}
    configs = {"sr_x2": configuration(images, loss=adversarial), "again": configuration(images, loss=adversarial)}
    with pytest.raises(ValueError, match="no discriminator"):
        joint_config(configs)


def test_a_state_of_other_tasks_is_refused(images, tmp_path):
    configs = experts(images)
    trainer = joint_trainer(configs, tmp_path / "run")
    trainer.fit(stop=lambda: trainer.step == 2)
    other = joint_trainer({name: configs[name] for name in ("sr_x2", "jpeg10")}, tmp_path / "run")
    with pytest.raises(ValueError, match="belongs to another network"):
        other.resume()
