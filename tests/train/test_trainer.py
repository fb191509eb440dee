"""Training runs: their files, and interrupted runs that end as uninterrupted ones."""

import logging
import math
import random
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from training import (
    CPU,
    SMALL,
    assert_same_ending,
    configuration,
    cpu_trainer,
    difference,
    last_state,
    rows,
    same,
    timeless,
    train,
)

from swinir.models.any_scale import at_scale
from swinir.train.distributed import Processes
from swinir.train.optimizer import NotFiniteError
from swinir.train.trainer import Trainer
from swinir.weights.checkpoint import load_model, read_checkpoint, write_checkpoint

DROPPING = {"network": SMALL | {"drop_path_rate": 0.2}}
GAN = {"adversarial": {"num_feat": 4}}


def stopped(config, run, at):
    """A run that was asked to stop at a step."""
    trainer = cpu_trainer(config, run)
    assert not trainer.fit(stop=lambda: trainer.step == at)
    return trainer


def gone_on(config, run, path=None):
    """A run that goes on, from its newest state or a given one, to its end."""
    trainer = cpu_trainer(config, run)
    assert trainer.resume(path)
    assert trainer.fit()
    return trainer


def state_of(run, step):
    (path,) = (run / "states").glob(f"step-{step:08d}-*.pt")
    return path


def steps_of(folder):
    return sorted(int(path.name.split("-")[1]) for path in folder.glob("step-*.pt"))


# What a run leaves.


def test_the_loss_falls(images, tmp_path):
    train(configuration(images, schedule={"iterations": 60}, log_every=10, validate_every=60), tmp_path / "run")
    losses = [row["loss"] for row in rows(tmp_path / "run") if "loss" in row]
    assert len(losses) == 6
    assert losses[-1] < 0.7 * losses[0]


def test_the_weights_written_are_the_averaged_ones(images, tmp_path):
    trainer = train(configuration(images), tmp_path / "run")
    model, averaged = load_model(tmp_path / "run" / "small.pth", device="cpu"), trainer.averaged()
    assert model.config == averaged.config
    assert not averaged.training
    assert trainer.optimization.network.training
    ours, theirs = (dict(network.named_parameters()) for network in (model, averaged))
    assert ours.keys() == theirs.keys()
    for name, parameter in trainer.optimization.network.named_parameters():
        assert torch.equal(ours[name], theirs[name])
        assert torch.equal(ours[name], trainer.optimization.ema.averages[name])
        assert not torch.equal(ours[name], parameter)
    checkpoint = read_checkpoint(tmp_path / "run" / "small.pth")
    assert (checkpoint.task, checkpoint.step, checkpoint.key) == ("lightweight_sr", 12, "params")


def test_rows_say_step_loss_rate_and_speed_and_now_and_then_validation(images, tmp_path):
    told = []
    trainer = cpu_trainer(configuration(images, schedule={"milestones": [8]}), tmp_path / "run", log=told.append)
    trainer.fit()
    assert rows(tmp_path / "run") == told
    assert [(row["step"], "loss" in row) for row in told] == [(4, True), (6, False), (8, True), (12, True), (12, False)]
    assert [row["lr"] for row in told if "lr" in row] == [2e-3, 2e-3, 1e-3]
    assert all(row["images_per_second"] > 0 for row in told if "loss" in row)
    assert all(0 <= row["waiting_for_data"] <= 1 for row in told if "loss" in row)
    assert told[-1] == {"step": 12} | trainer.validate()


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when a test adds them."""
    now = SimpleNamespace(seconds=0.0)
    for module in ("trainer", "logger"):
        monkeypatch.setattr(f"swinir.train.{module}.time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def test_rows_say_how_fast_the_steps_are_and_how_long_they_wait_for_data(images, tmp_path, clock, monkeypatch):
    def took(seconds, work):
        def slower(*args):
            clock.seconds += seconds
            return work(*args)

        return slower

    trainer = cpu_trainer(configuration(images, log_every=6, validate_every=3), tmp_path / "run")
    plain = trainer.stream.batches
    monkeypatch.setattr(trainer.stream, "batches", lambda *at: map(took(3, lambda batch: batch), plain(*at)))
    monkeypatch.setattr(trainer, "train_on", took(1, trainer.train_on))
    monkeypatch.setattr(trainer, "validate", took(100, dict))
    trainer.fit()
    expected = {"iterations_per_second": 0.25, "waiting_for_data": 0.75}
    found = [row for row in rows(tmp_path / "run") if "loss" in row]
    assert [{name: row[name] for name in expected} for row in found] == [expected] * 2
    assert [row["images_per_second"] for row in found] == [0.5] * 2
    assert trainer.pace.row() == expected
    assert trainer.pace.iterations == 12


def test_the_best_weights_are_kept_beside_the_last(images, tmp_path, monkeypatch):
    scores = iter([{"psnr_y": 30.0}, {"psnr_y": 32.0}, {"psnr_y": 31.0}, {"psnr_y": 32.0}])
    monkeypatch.setattr(Trainer, "validate", lambda trainer: next(scores))
    trainer = train(configuration(images, validate_every=3, keep=1), tmp_path / "run")
    assert trainer.best == 32
    assert read_checkpoint(tmp_path / "run" / "small_best.pth").step == 6
    assert [path.name.split("-")[:2] for path in (trainer.states.best(),)] == [["best", "00000006"]]
    assert steps_of(tmp_path / "run" / "states") == [12]


@pytest.mark.parametrize("options", [{"precision": "bf16"}, {"precision": "fp16"}, {"channels_last": True}], ids=str)
def test_every_way_of_computing_learns_and_its_weights_load(images, tmp_path, options):
    config = configuration(images, schedule={"iterations": 20}, log_every=10, data={"holdout": 0}, **options)
    train(config, tmp_path / "run")
    losses = [row["loss"] for row in rows(tmp_path / "run")]
    assert losses[-1] < losses[0]
    model = load_model(tmp_path / "run" / "small.pth", device="cpu")
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_workers_draw_the_same_batches(images, tmp_path):
    for workers in (0, 2):
        train(configuration(images, schedule={"iterations": 4}, data={"workers": workers}), tmp_path / str(workers))
    assert timeless(tmp_path / "0") == timeless(tmp_path / "2")
    assert same(last_state(tmp_path / "0")["optimization"], last_state(tmp_path / "2")["optimization"])


def test_the_seed_decides_the_run(images, tmp_path):
    losses = []
    for i, seed in enumerate((3, 3, 4)):
        torch.manual_seed(i)
        train(configuration(images, seed=seed, schedule={"iterations": 4}, **DROPPING), tmp_path / str(i))
        losses.append([row["loss"] for row in rows(tmp_path / str(i)) if "loss" in row])
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("workers", [0, 1])
def test_training_leaves_every_global_generator_where_it_was(images, tmp_path, workers):
    def states():
        return torch.get_rng_state().tolist(), repr(np.random.get_state()), random.getstate()

    before = states()
    options = {"data": {"workers": workers}, "loss": GAN, "schedule": {"iterations": 3}, "validate_every": 2}
    trainer = train(configuration(images, **options, **DROPPING), tmp_path / "run")
    trainer.resume()
    assert states() == before


def test_indivisible_batches_and_unusable_images_are_refused_before_anything_is_written(images, tmp_path):
    config = configuration(images, data={"batch": 6}, accumulate=2)
    with pytest.raises(ValueError, match="must be a multiple of accumulate times processes, got 6 for 2 times 2"):
        Trainer(config, tmp_path / "run", processes=Processes(CPU, 0, 2))
    (images / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.png: the file is empty"):
        cpu_trainer(configuration(images), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Going on.


def test_a_run_that_is_stopped_at_every_step_ends_with_the_same_weights(images, tmp_path):
    schedule = {"warmup": 3, "kind": "cosine"}
    config = configuration(images, precision="fp16", accumulate=2, schedule=schedule, **DROPPING)
    train(config, tmp_path / "whole")
    for step in range(13):
        trainer = cpu_trainer(config, tmp_path / "parts")
        assert bool(trainer.resume()) == (step > 0)
        assert not trainer.fit(stop=lambda trainer=trainer, step=step: trainer.step == step) or step == 12
        assert trainer.step == step
        assert trainer.weights_path.exists() == (step == 12)
    assert_same_ending(tmp_path / "parts", tmp_path / "whole")


def test_a_run_with_muon_that_was_stopped_ends_with_the_same_weights(images, tmp_path):
    muon = {"name": "muon", "lr": 4e-3, "clip_norm": 1.0}
    config = configuration(
        images, precision="bf16", optimizer=muon, schedule={"warmup": 3, "kind": "cosine"}, **DROPPING
    )
    train(config, tmp_path / "whole")
    stopped(config, tmp_path / "parts", 5)
    gone_on(config, tmp_path / "parts")
    assert_same_ending(tmp_path / "parts", tmp_path / "whole")


def test_a_run_of_any_scale_that_was_stopped_ends_with_the_same_weights_and_takes_any_scale(images, tmp_path):
    options = {"scale": [1.1, 2], "accumulate": 2, "precision": "bf16", "schedule": {"iterations": 6}}
    config = configuration(images, **options)
    train(config, tmp_path / "whole")
    stopped(config, tmp_path / "parts", 3)
    gone_on(config, tmp_path / "parts")
    assert_same_ending(tmp_path / "parts", tmp_path / "whole")
    network = load_model(tmp_path / "whole" / "small.pth", "cpu")
    assert (network.config.upsampler, network.config.upscale) == ("any", 2)
    assert at_scale(network, 1.5)(torch.rand(1, 3, 8, 8)).shape == (1, 3, 12, 12)


def test_a_finished_run_may_be_made_longer(images, tmp_path):
    train(configuration(images, schedule={"iterations": 16}), tmp_path / "whole")
    train(configuration(images), tmp_path / "parts")
    gone_on(configuration(images, schedule={"iterations": 16}), tmp_path / "parts")
    assert timeless(tmp_path / "parts") == timeless(tmp_path / "whole")
    states = [last_state(tmp_path / name)["optimization"] for name in ("parts", "whole")]
    assert same(*states)


def test_another_size_of_batch_goes_on_with_samples_that_were_not_drawn_yet(images, tmp_path):
    stopped(configuration(images), tmp_path / "run", 5)
    trainer = cpu_trainer(configuration(images, data={"batch": 4}), tmp_path / "run")
    trainer.resume()
    assert trainer.drawn == 10
    trainer.fit()
    assert trainer.drawn == 10 + 7 * 4


def test_starting_again_forgets_rows_of_steps_that_are_done_again(images, tmp_path):
    train(configuration(images), tmp_path / "run")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99, "lo')
    train(configuration(images), tmp_path / "run")
    assert [row["step"] for row in rows(tmp_path / "run")] == [4, 6, 8, 12, 12]


def test_a_damaged_newest_state_is_skipped_with_a_warning_and_the_run_ends_the_same(images, tmp_path, caplog):
    config = configuration(images, save_every=3, **DROPPING)
    train(config, tmp_path / "whole")
    stopped(config, tmp_path / "parts", 10)
    path = state_of(tmp_path / "parts", 10)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    trainer = cpu_trainer(config, tmp_path / "parts")
    with caplog.at_level(logging.WARNING):
        assert trainer.resume() == state_of(tmp_path / "parts", 9)
    (message,) = caplog.messages
    assert re.search(r"step-00000010-.*resuming from step-00000009", message)
    trainer.fit()
    assert_same_ending(tmp_path / "parts", tmp_path / "whole")


def test_an_older_state_is_gone_back_to_and_the_later_ones_are_abandoned(images, tmp_path):
    config = configuration(images, save_every=3, **DROPPING)
    train(config, tmp_path / "whole")
    train(config, tmp_path / "parts")
    assert steps_of(tmp_path / "parts" / "states") == [6, 9, 12]
    trainer = cpu_trainer(config, tmp_path / "parts")
    trainer.resume(state_of(tmp_path / "parts", 6))
    assert not trainer.fit(stop=lambda: True)
    assert steps_of(tmp_path / "parts" / "states") == [6]
    assert steps_of(tmp_path / "parts" / "states" / "abandoned") == [9, 12]
    gone_on(config, tmp_path / "parts")
    assert_same_ending(tmp_path / "parts", tmp_path / "whole")


def test_a_state_of_another_folder_is_this_runs_newest_from_the_start(images, tmp_path):
    config = configuration(images, save_every=3)
    train(config, tmp_path / "whole")
    stopped(config, tmp_path / "parts", 4)
    trainer = cpu_trainer(config, tmp_path / "parts")
    trainer.resume(state_of(tmp_path / "whole", 9))
    assert not trainer.fit(stop=lambda: True)
    assert steps_of(tmp_path / "parts" / "states") == [3, 4, 9]
    gone_on(config, tmp_path / "parts")
    ours, theirs = (last_state(tmp_path / name)["optimization"] for name in ("parts", "whole"))
    assert same(ours, theirs)


@pytest.mark.gpu
def test_a_run_on_a_gpu_that_is_stopped_ends_with_the_same_weights(images, tmp_path, cuda):
    muon = {"name": "muon", "lr": 4e-3, "clip_norm": 1.0}
    config = configuration(images, precision="bf16", optimizer=muon, data={"workers": 2}, **DROPPING)

    def trainer(name, data=config):
        return Trainer(data, tmp_path / name, processes=Processes(cuda))

    with torch.backends.cudnn.flags(enabled=True, deterministic=True):
        assert trainer("whole").fit()
        first = trainer("parts")
        assert not first.fit(stop=lambda: first.step == 5)
        second = trainer("parts", config.model_copy(update={"data": config.data.model_copy(update={"workers": 0})}))
        assert second.resume()
        assert second.fit()
    ours, theirs = (last_state(tmp_path / name)["optimization"] for name in ("parts", "whole"))
    assert same(ours, theirs)
    assert timeless(tmp_path / "parts") == timeless(tmp_path / "whole")


# States that are none.


def refusal(trainer, path=None):
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the callers look at the message
        trainer.resume(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_files_that_are_no_states_are_refused(images, tmp_path):
    trainer = cpu_trainer(configuration(images), tmp_path / "run")
    write_checkpoint(tmp_path / "x.pth", trainer.optimization.network.state_dict(), trainer.optimization.network.config)
    assert "has no name of a state" in refusal(trainer, tmp_path / "x.pth")
    named = tmp_path / f"step-00000004-{'0' * 16}.pt"
    named.write_bytes(b"PK\x03\x04" + bytes(50))
    assert refusal(trainer, named).startswith(f"{named}: is damaged")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        trainer.resume(tmp_path / "nowhere" / named.name)


def test_a_state_that_lacks_something_is_refused(images, tmp_path):
    trainer = cpu_trainer(configuration(images), tmp_path / "run")
    for number, name in enumerate(trainer.state()):
        content = {key: value for key, value in trainer.state().items() if key != name}
        path = trainer.states.save(content, number)
        assert "not a training state of this version; start again with --fresh" in refusal(trainer, path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": SMALL | {"embed_dim": 8}}, "belongs to another network"),
        ({"scale": 3}, "belongs to another network"),
        ({"seed": 4}, "the state has seed 3, the configuration 4"),
        ({"loss": GAN}, "differ in loss.adversarial"),
    ],
)
def test_the_state_of_another_run_is_refused_and_changes_nothing(images, tmp_path, options, message):
    stopped(configuration(images), tmp_path / "run", 5)
    other = cpu_trainer(configuration(images, **options), tmp_path / "run")
    fresh = cpu_trainer(configuration(images, **options), tmp_path / "fresh")
    found = refusal(other)
    assert f"{message}; choose another --run folder, or --fresh" in found
    assert str(state_of(tmp_path / "run", 5)) in found
    assert (other.step, other.drawn, other.best) == (0, 0, None)
    assert difference(other.optimization.network, fresh.optimization.network) == 0


# What is not finite.


class Spoiled:
    """Samples of which one has an infinite pixel."""

    def __init__(self, samples, number):
        self.samples, self.number = samples, number

    def __getitem__(self, key):
        lq, gt = (tensor.float() / 255 for tensor in self.samples[key])
        if key[0] == self.number:
            lq[0, 3, 4] = math.inf
        return lq, gt


def test_a_batch_that_is_not_finite_is_kept_and_the_run_can_go_on_before_it(images, tmp_path):
    config = configuration(images, save_every=5, log_every=5)
    trainer = cpu_trainer(config, tmp_path / "run")
    trainer.stream.samples = Spoiled(trainer.stream.samples, 15)  # the second of step 7
    with pytest.raises(NotFiniteError, match=r"^step 7: not finite: loss nan; .*; the batch is in ") as caught:
        trainer.fit()
    path = tmp_path / "run" / "not_finite_step00000007_process0.pt"
    assert str(caught.value).endswith(str(path))
    content = torch.load(path, weights_only=True)
    assert (content["step"], content["drawn"]) == (7, 14)
    (part,) = content["parts"]
    assert part["lq"].shape == (2, 3, 16, 16)
    assert part["gt"].shape == (2, 3, 32, 32)
    assert not torch.isfinite(part["lq"][1, 0, 3, 4])
    assert torch.isfinite(part["lq"][0]).all()
    assert steps_of(tmp_path / "run" / "states") == [5, 6]
    assert trainer.step == 7
    gone_on(config, tmp_path / "run")
    train(config, tmp_path / "whole")
    assert_same_ending(tmp_path / "run", tmp_path / "whole")


def test_rows_stay_json_when_a_step_of_half_precision_overflows(images, tmp_path):
    trainer = cpu_trainer(configuration(images, precision="fp16", log_every=1), tmp_path / "run")
    hook = trainer.optimization.parameters[0].register_hook(lambda grad: grad * math.inf)
    trainer.fit(stop=lambda: trainer.step == 1)
    hook.remove()
    trainer.fit(stop=lambda: trainer.step == 2)
    assert "Infinity" not in (tmp_path / "run" / "metrics.jsonl").read_text()
    norms = [row["grad_norm"] for row in rows(tmp_path / "run")]
    assert norms[0] is None
    assert norms[1] > 0


# Discriminators, and going back.


def test_a_discriminator_is_written_and_another_run_starts_from_it_if_it_fits_and_has_a_use(images, tmp_path):
    first = train(configuration(images, loss=GAN, schedule={"iterations": 1}), tmp_path / "first")
    path = tmp_path / "first" / "small_discriminator.pth"
    init = {"discriminator": str(path)}
    trainer = cpu_trainer(configuration(images, loss=GAN, init=init, seed=9), tmp_path / "second")
    ours, theirs = (t.optimization.objective.adversary.discriminator.state_dict() for t in (trainer, first))
    assert same(ours, theirs)
    assert trainer.train_step.init["discriminator"] == path.name
    wider = {"adversarial": {"num_feat": 8}}
    with pytest.raises(ValueError, match=r"small_discriminator.pth: not the weights of this discriminator: [^\n]*$"):
        cpu_trainer(configuration(images, loss=wider, init=init), tmp_path / "third")
    with pytest.raises(ValueError, match=r"there is no \[loss.adversarial\]"):
        cpu_trainer(configuration(images, init=init), tmp_path / "third")


def test_going_on_with_other_images_is_said(images, tmp_path, caplog):
    config = configuration(images)
    first = cpu_trainer(config, tmp_path / "run")
    first.fit(stop=lambda: first.step == 3)
    cpu_trainer(config, tmp_path / "run").resume()
    assert not caplog.records
    (images / "a.png").unlink()
    cpu_trainer(config, tmp_path / "run").resume()
    assert "the training images differ from those of the steps before" in caplog.text


def test_best_weights_of_an_abandoned_line_are_put_away(images, tmp_path):
    config = configuration(images, save_every=3, validate_every=6, keep=9)
    cpu_trainer(config, tmp_path / "run").fit()
    best = tmp_path / "run" / "small_best.pth"
    assert best.exists()
    trainer = cpu_trainer(config, tmp_path / "run")
    early = next(path for path in trainer.states.paths() if path.name.startswith("step-00000003"))
    trainer.resume(early)
    assert not trainer.fit(stop=lambda: trainer.step == 4)
    assert not best.exists()
    assert (tmp_path / "run" / "states" / "abandoned" / "small_best.pth").exists()
