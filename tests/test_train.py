"""Training against the golden steps, closed forms and itself: an interrupted run ends as one that was not."""

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import DATA
from golden_state import state
from hypothesis import given, settings
from hypothesis import strategies as st

from swinir.checkpoint import load_model, read_checkpoint, write_checkpoint
from swinir.cli.main import main
from swinir.color import luma
from swinir.degrade.resize import imresize
from swinir.image import ImageError, read, write
from swinir.metrics import psnr
from swinir.network import NetworkConfig, SwinIR
from swinir.restoration import restore
from swinir.train.config import LossConfig, ScheduleConfig, TrainConfig, load_config
from swinir.train.data import Pair, PatchSampler, find_images, load_pairs, split_holdout
from swinir.train.ema import Ema
from swinir.train.losses import build_loss, charbonnier, l1
from swinir.train.trainer import Trainer, learning_rate, train_step

GOLDEN = json.loads((DATA / "train_steps.json").read_text())
CONFIGS = sorted((Path(__file__).parents[1] / "configs").rglob("*.toml"))
SMALL = {"embed_dim": 12, "depths": [2], "num_heads": [2]}


# Steps.


@pytest.mark.parametrize(
    ("case", "loss"),
    [("l1", LossConfig()), ("charbonnier_eps1e-9", LossConfig(name="charbonnier", epsilon=1e-9))],
)
def test_eight_steps_are_those_of_the_released_training(case, loss):
    config = NetworkConfig.from_dict(GOLDEN["config"])
    network = SwinIR(config).double()
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    weights = {name: torch.from_numpy(array) for name, array in state(shapes, GOLDEN["seed"]).items()}
    network.load_state_dict(weights, strict=False)
    schedule = ScheduleConfig(iterations=8, milestones=(4, 6))
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-4)
    ema = Ema(network, 0.999)
    expected = GOLDEN["cases"][case]
    stream = np.random.default_rng(11)
    for step, golden in enumerate(expected["steps"]):
        lq, gt = (torch.from_numpy(stream.random((2, 3, side, side))) for side in (16, 32))
        lr = learning_rate(schedule, 2e-4, step)
        assert lr == pytest.approx(expected["lr"][step], rel=1e-12)
        for group in optimizer.param_groups:
            group["lr"] = lr
        value = train_step(network, optimizer, build_loss(loss), lq, gt)
        ema.update(network)
        norm = math.sqrt(sum(p.grad.square().sum().item() for p in network.parameters()))
        assert value.item() == pytest.approx(golden["loss"], rel=1e-9)
        assert norm == pytest.approx(golden["grad_norm"], rel=1e-9)

    x = torch.from_numpy(stream.random((1, 3, 16, 16)))
    network.eval()
    with torch.no_grad():
        output = network(x)
        for name, parameter in network.named_parameters():
            parameter.copy_(ema.averages[name])
        averaged = network(x)
    assert output.mean().item() == pytest.approx(expected["final_output_mean"], abs=1e-9)
    assert output.std().item() == pytest.approx(expected["final_output_std"], abs=1e-9)
    for ours, corner in ((output, "final_output_corner"), (averaged, "ema_output_corner")):
        assert ours[0, :, :2, :2].flatten().tolist() == pytest.approx(expected[corner], abs=1e-9)


def small_network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SwinIR(NetworkConfig(upscale=2, upsampler="pixelshuffledirect", img_size=16, **SMALL))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_any_weight_moves(bad):
    network = small_network()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    lq, gt = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 32, 32)
    train_step(network, optimizer, l1, lq, gt)
    before = [p.detach().clone() for p in network.parameters()]
    gt[0, 0, 0, 0] = bad
    with pytest.raises(FloatingPointError, match=r"the loss became (nan|inf); lower optimizer\.lr"):
        train_step(network, optimizer, l1, lq, gt)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_clipping_limits_the_norm_of_the_gradient():
    network = small_network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0)
    train_step(network, optimizer, l1, torch.rand(1, 3, 16, 16), torch.rand(1, 3, 32, 32), clip_norm=1e-3)
    assert math.sqrt(sum(p.grad.square().sum().item() for p in network.parameters())) == pytest.approx(1e-3, rel=1e-2)


def test_losses_have_closed_forms():
    restored, gt = torch.tensor([0.0, 3.0, 4.0]), torch.tensor([0.0, 0.0, 0.0])
    assert l1(restored, gt).item() == pytest.approx(7 / 3)
    expected = (math.sqrt(1e-6) + math.sqrt(9 + 1e-6) + math.sqrt(16 + 1e-6)) / 3
    assert charbonnier(restored.double(), gt.double(), 1e-6).item() == pytest.approx(expected, rel=1e-12)


@given(st.floats(0, 0.999), st.integers(1, 10))
@settings(max_examples=20, deadline=None)
def test_averages_follow_their_closed_form(decay, steps):
    layer = torch.nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        layer.weight.fill_(1)
    ema = Ema(layer, decay)
    with torch.no_grad():
        layer.weight.fill_(3)
    for _ in range(steps):
        ema.update(layer)
    assert ema.averages["weight"].item() == pytest.approx(3 - 2 * decay**steps, rel=1e-12)
    assert layer.weight.item() == 3


def test_averages_of_another_network_are_refused():
    ema = Ema(torch.nn.Linear(2, 2), 0.9)
    with pytest.raises(ValueError, match="another network"):
        ema.load({"weight": torch.zeros(2, 2)})


# Schedules.


def test_milestones_halve_the_learning_rate_as_pytorchs_scheduler_does():
    schedule = ScheduleConfig(iterations=12, milestones=(3, 7, 8), gamma=0.5)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2e-4)
    theirs = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 7, 8], 0.5)
    for step in range(12):
        assert learning_rate(schedule, 2e-4, step) == pytest.approx(theirs.get_last_lr()[0], rel=1e-12)
        optimizer.step()
        theirs.step()


def test_a_cosine_goes_from_the_first_rate_to_the_last():
    schedule = ScheduleConfig(iterations=100, kind="cosine", final=0.1)
    rates = [learning_rate(schedule, 1.0, step) for step in (0, 25, 50, 75, 100)]
    half = math.sqrt(0.5)
    assert rates == pytest.approx([1.0, 0.55 + 0.45 * half, 0.55, 0.55 - 0.45 * half, 0.1])


def test_warm_up_is_linear_and_the_cosine_begins_after_it():
    schedule = ScheduleConfig(iterations=110, warmup=10, kind="cosine")
    assert [learning_rate(schedule, 1.0, step) for step in range(11)] == pytest.approx(
        [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0]
    )
    assert learning_rate(schedule, 1.0, 60) == pytest.approx(0.5)


@pytest.mark.parametrize("kind", ["multistep", "cosine"])
@pytest.mark.parametrize(("iterations", "warmup"), [(1, 0), (5, 5), (5, 10)])
def test_every_step_of_a_short_schedule_has_a_rate(kind, iterations, warmup):
    schedule = ScheduleConfig(iterations=iterations, warmup=warmup, kind=kind)
    assert all(0 < learning_rate(schedule, 1.0, step) <= 1 for step in range(iterations))


# Data.


def coordinate_pair(height, width, scale, mark=0):
    """Pixels hold their coordinates; of a block of ground truth, the low-quality pixel holds the least."""
    rows, cols = np.mgrid[: height * scale, : width * scale].astype(np.uint8)
    gt = np.stack([rows, cols, np.full_like(rows, mark)], axis=2)
    return Pair(str(mark), gt, gt[::scale, ::scale])


def drawn(sampler, count):
    """`count` single samples as uint8 (lq, gt), each (H, W, C)."""
    for _ in range(count):
        for lq, gt in zip(*sampler.next(), strict=True):
            yield tuple((x * 255).round().byte().permute(1, 2, 0).numpy() for x in (lq, gt))


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_patches_show_the_same_place_in_both_images(scale):
    sampler = PatchSampler([coordinate_pair(20, 24, scale)], patch=8, scale=scale, batch=4, seed=0)
    for lq, gt in drawn(sampler, 20):
        assert lq.shape == (8, 8, 3)
        assert gt.shape == (8 * scale, 8 * scale, 3)
        blocks = gt.reshape(8, scale, 8, scale, 3)
        assert np.array_equal(blocks.min(axis=(1, 3)), lq)


def test_patches_are_turned_in_all_eight_ways_and_reach_every_corner():
    sampler = PatchSampler([coordinate_pair(11, 10, 2)], patch=8, scale=2, batch=8, seed=0)
    ways, corners = set(), set()
    for lq, _ in drawn(sampler, 60):
        down, right = (lq[1, 0] - lq[0, 0].astype(int)).tolist(), (lq[0, 1] - lq[0, 0].astype(int)).tolist()
        ways.add((*down, *right))
        corners.add(tuple(lq[..., :2].min(axis=(0, 1)) // 2))
    assert len(ways) == 8
    assert corners == {(y, x) for y in range(4) for x in range(3)}


def test_images_are_drawn_in_proportion_to_their_pixels():
    pairs = [coordinate_pair(10, 10, 1, mark=1), coordinate_pair(20, 20, 1, mark=2)]
    sampler = PatchSampler(pairs, patch=4, scale=1, batch=100, seed=0)
    counts = Counter(int(lq[0, 0, 2]) for lq, _ in drawn(sampler, 20))
    assert counts[2] / 2000 == pytest.approx(0.8, abs=0.04)


def test_values_are_in_units_of_one():
    pair = Pair("x", np.full((16, 16, 3), 255, np.uint8), np.full((8, 8, 3), 51, np.uint8))
    lq, gt = PatchSampler([pair], patch=8, scale=2, batch=1, seed=0).next()
    assert lq.dtype == gt.dtype == torch.float32
    assert torch.equal(gt, torch.ones(1, 3, 16, 16))
    assert torch.allclose(lq, torch.full((1, 3, 8, 8), 0.2))


def test_a_sampler_goes_on_from_its_state_as_if_it_had_not_stopped():
    pairs = [coordinate_pair(20, 24, 2, mark) for mark in range(3)]
    sampler = PatchSampler(pairs, patch=8, scale=2, batch=2, seed=5)
    for _ in range(3):
        sampler.next()
    stored = json.loads(json.dumps(sampler.state()))
    expected = [sampler.next() for _ in range(3)]
    other = PatchSampler(pairs, patch=8, scale=2, batch=2, seed=0)
    other.load_state(stored)
    for lq, gt in expected:
        ours = other.next()
        assert torch.equal(ours[0], lq)
        assert torch.equal(ours[1], gt)


def test_another_seed_draws_other_patches():
    pairs = [coordinate_pair(20, 24, 2)]
    one, same, other = (PatchSampler(pairs, patch=8, scale=2, batch=8, seed=s).next()[0] for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@given(st.integers(1, 60), st.integers(0, 59))
def test_held_out_images_are_evenly_spaced_and_no_others_are_missing(total, holdout):
    paths = [Path(f"{i:03d}") for i in range(total)]
    if holdout >= total:
        with pytest.raises(ValueError, match=f"must leave images to train on, got {holdout} of {total}"):
            split_holdout(paths, holdout)
        return
    train, held = split_holdout(paths, holdout)
    assert len(held) == holdout
    assert sorted(train + held) == paths
    steps = np.diff([int(p.name) for p in held])
    assert len(steps) == 0 or steps.max() - steps.min() <= 1


def smooth_picture(height, width, seed):
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[:height, :width][:, :, :, None]
    period, phase = rng.uniform(3, 9, (2, 3)), rng.uniform(0, 6, 3)
    waves = 127 + 60 * np.sin(xx / period[0] + phase) + 60 * np.cos(yy / period[1])
    return (waves + 20 * ((xx // 7 + yy // 5) % 2)).clip(0, 255).astype(np.uint8)


@pytest.fixture
def images(tmp_path):
    """A folder of five training images of different sizes, one of them in a subfolder."""
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for i, name in enumerate(("a.png", "b.png", "c.png", "d.png", "sub/e.png")):
        write(folder / name, smooth_picture(50 + 3 * i, 64 - i, i))
    return folder


def test_low_quality_images_are_matlabs_bicubic_of_what_the_scale_divides(images):
    paths = find_images(images)
    pairs = load_pairs(paths, 3, 8)
    for path, pair in zip(paths, pairs, strict=True):
        whole = read(path)
        expected = whole[: whole.shape[0] // 3 * 3, : whole.shape[1] // 3 * 3]
        assert np.array_equal(pair.gt, expected)
        assert np.array_equal(pair.lq, imresize(expected, 1 / 3))


def test_images_are_found_in_subfolders_and_hidden_files_are_not(images):
    (images / "._a.png").write_bytes(b"left by another system")
    (images / "notes.txt").touch()
    assert [p.relative_to(images).as_posix() for p in find_images(images)] == [
        "a.png",
        "b.png",
        "c.png",
        "d.png",
        "sub/e.png",
    ]


def test_images_that_cannot_be_used_are_all_named_before_training(images):
    (images / "b.png").write_text("not an image")
    write(images / "c.png", smooth_picture(40, 31, 0))
    with pytest.raises(ImageError) as caught:
        load_pairs(find_images(images), 2, 16)
    message = str(caught.value)
    assert f"{images / 'b.png'}: not an image" in message
    assert f"{images / 'c.png'}: 31x40 is smaller than a patch of 32 pixels" in message
    assert "\n" not in message


def test_many_unusable_images_are_counted_rather_than_listed(images):
    with pytest.raises(ImageError, match=r"\(and 2 more\)$"):
        load_pairs(find_images(images), 2, 100)


def test_a_folder_without_images_or_none_at_all_is_refused(tmp_path):
    with pytest.raises(ValueError, match=f"no images in {tmp_path}; looked for .png"):
        find_images(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"training folder not found: .*nowhere; pass --set data\.train"):
        find_images(tmp_path / "nowhere")


# Runs.


def configuration(images, **options):
    schedule = {"iterations": 12} | options.pop("schedule", {})
    values = {
        "name": "small",
        "task": "lightweight_sr",
        "scale": 2,
        "data": {"train": images, "patch": 16, "batch": 2, "holdout": 1},
        "network": SMALL,
        "optimizer": {"lr": 2e-3},
        "schedule": schedule,
        "ema": 0.9,
        "log_every": 4,
        "validate_every": 6,
        "seed": 3,
    }
    return TrainConfig.model_validate(values | options)


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_loss_falls(images, tmp_path):
    config = configuration(images, schedule={"iterations": 60}, log_every=10, validate_every=60)
    assert Trainer(config, tmp_path / "run", device="cpu").fit()
    losses = [row["loss"] for row in rows(tmp_path / "run") if "loss" in row]
    assert len(losses) == 6
    assert losses[-1] < 0.7 * losses[0]


def test_the_weights_written_are_the_averaged_ones(images, tmp_path):
    trainer = Trainer(configuration(images), tmp_path / "run", device="cpu")
    trainer.fit()
    model, averaged = load_model(tmp_path / "run" / "small.pth", device="cpu"), trainer.averaged()
    assert model.config == averaged.config
    ours, theirs = (dict(network.named_parameters()) for network in (model, averaged))
    assert ours.keys() == theirs.keys()
    for name, parameter in trainer.network.named_parameters():
        assert torch.equal(ours[name], theirs[name])
        assert torch.equal(ours[name], trainer.ema.averages[name])
        assert not torch.equal(ours[name], parameter)
    checkpoint = read_checkpoint(tmp_path / "run" / "small.pth")
    assert (checkpoint.task, checkpoint.step, checkpoint.key) == ("lightweight_sr", 12, "params")


def test_rows_say_step_loss_rate_and_speed_and_now_and_then_validation(images, tmp_path):
    told = []
    config = configuration(images, schedule={"iterations": 12, "milestones": [8]})
    trainer = Trainer(config, tmp_path / "run", device="cpu", log=told.append)
    trainer.fit()
    assert rows(tmp_path / "run") == told
    assert [(row["step"], "loss" in row) for row in told] == [(4, True), (6, False), (8, True), (12, True), (12, False)]
    assert [row["lr"] for row in told if "lr" in row] == [2e-3, 2e-3, 1e-3]
    assert all(row["images_per_second"] > 0 for row in told if "loss" in row)
    assert told[-1]["psnr_y"] == trainer.validate()


def test_validation_is_the_testers_psnr_on_luma(images, tmp_path):
    trainer = Trainer(configuration(images), tmp_path / "run", device="cpu")
    (held,) = split_holdout(find_images(images), 1)[1]
    gt = read(held)
    gt = gt[: gt.shape[0] // 2 * 2, : gt.shape[1] // 2 * 2]
    lq = torch.from_numpy(imresize(gt, 0.5)).permute(2, 0, 1)[None] / 255
    restored = (restore(trainer.network.eval(), lq)[0].permute(1, 2, 0) * 255).round().byte().numpy()
    assert trainer.validate() == psnr(luma(restored)[2:-2, 2:-2], luma(gt)[2:-2, 2:-2])


@pytest.mark.parametrize("at", [1, 5, 6, 11])
def test_a_run_that_was_stopped_ends_with_the_same_weights(images, tmp_path, at):
    network = SMALL | {"drop_path_rate": 0.2}  # draws from a generator of its own
    config = configuration(images, network=network, schedule={"iterations": 12, "warmup": 3, "kind": "cosine"})
    whole = Trainer(config, tmp_path / "whole", device="cpu")
    assert whole.fit()

    first = Trainer(config, tmp_path / "parts", device="cpu")
    assert not first.fit(stop=lambda: first.step == at)
    assert not first.weights_path.exists()
    second = Trainer(config, tmp_path / "parts", device="cpu")
    second.resume(tmp_path / "parts" / "state.pt")
    assert second.step == at
    assert second.fit()

    for name, parameter in whole.network.named_parameters():
        assert torch.equal(parameter, dict(second.network.named_parameters())[name])
        assert torch.equal(whole.ema.averages[name], second.ema.averages[name])
    ours, theirs = (read_checkpoint(trainer.weights_path).state for trainer in (whole, second))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    validated = [[row for row in rows(tmp_path / run) if "psnr_y" in row] for run in ("whole", "parts")]
    assert validated[0] == validated[1]


def test_the_seed_decides_the_run(images, tmp_path):
    losses = []
    for i, seed in enumerate((3, 3, 4)):
        torch.manual_seed(i)
        network = SMALL | {"drop_path_rate": 0.2}
        Trainer(configuration(images, network=network, seed=seed), tmp_path / str(i), device="cpu").fit()
        losses.append([row["loss"] for row in rows(tmp_path / str(i)) if "loss" in row])
    assert losses[0] == losses[1] != losses[2]


def test_training_leaves_the_global_generator_where_it_was(images, tmp_path):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    Trainer(configuration(images, network=SMALL | {"drop_path_rate": 0.2}), tmp_path / "run", device="cpu").fit()
    assert torch.equal(torch.rand(3), expected)


def test_starting_again_forgets_rows_of_steps_that_are_done_again(images, tmp_path):
    first = Trainer(configuration(images), tmp_path / "run", device="cpu")
    first.fit()
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99, "lo')
    Trainer(configuration(images), tmp_path / "run", device="cpu").fit()
    assert [row["step"] for row in rows(tmp_path / "run")] == [4, 6, 8, 12, 12]


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04" + bytes(50), b"\x80\x02}q\x00."], ids=repr)
def test_a_state_that_is_none_is_refused(images, tmp_path, content):
    trainer = Trainer(configuration(images), tmp_path / "run", device="cpu")
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"state\.pt: not a training state; delete it to start afresh"):
        trainer.resume(tmp_path / "state.pt")


def test_a_file_of_weights_is_no_training_state(images, tmp_path):
    trainer = Trainer(configuration(images), tmp_path / "run", device="cpu")
    write_checkpoint(tmp_path / "x.pth", trainer.network.state_dict(), trainer.network.config)
    torch.save(torch.zeros(3), tmp_path / "y.pth")
    for name in ("x.pth", "y.pth"):
        with pytest.raises(ValueError, match="not a training state"):
            trainer.resume(tmp_path / name)


def test_the_state_of_another_network_is_refused(images, tmp_path):
    trainer = Trainer(configuration(images), tmp_path / "run", device="cpu")
    trainer.run.mkdir()
    trainer.save()
    other = Trainer(configuration(images, network=SMALL | {"embed_dim": 8}), tmp_path / "run", device="cpu")
    with pytest.raises(ValueError, match="belongs to another network; choose another --run folder"):
        other.resume(tmp_path / "run" / "state.pt")


def test_bfloat16_training_learns_too(images, tmp_path):
    config = configuration(images, schedule={"iterations": 30}, log_every=10, precision="bf16")
    Trainer(config, tmp_path / "run", device="cpu").fit()
    losses = [row["loss"] for row in rows(tmp_path / "run") if "loss" in row]
    assert losses[-1] < losses[0]


# Configurations and the command.


TOML = """
name = "small"
task = "lightweight_sr"
scale = 2
[data]
train = "images"
patch = 16
[schedule]
iterations = 12
[network]
embed_dim = 12
depths = [2]
num_heads = [2]
"""


@pytest.fixture
def toml(tmp_path):
    """A function that writes the small configuration, with text replaced, and gives its path."""

    def make(old="", new=""):
        assert old in TOML
        (tmp_path / "x.toml").write_text(TOML.replace(old, new) if old else TOML + new)
        return tmp_path / "x.toml"

    return make


def refusal(path, *overrides):
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the callers look at the message
        load_config(path, overrides)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_configuration_of_the_project_loads(path):
    config = load_config(path)
    SwinIR(config.network_config())


def test_there_are_configurations():
    assert CONFIGS


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("patch", "pach", "unknown key data.pach; did you mean patch?"),
        ("[schedule]", "[shedule]", "unknown key shedule; did you mean schedule?"),
        ("", "zzzzzz = 1", "unknown network option 'zzzzzz'"),
        ("iterations = 12", "", "missing key schedule.iterations"),
        ('name = "small"', "", "missing key name"),
        ("iterations = 12", "iterations = 0", "schedule.iterations: Input should be greater than or equal to 1, got 0"),
        ("iterations = 12", 'iterations = "many"', "got 'many'"),
        ('"small"', '"a/b"', "name: String should match pattern"),
        ('"lightweight_sr"', '"lightweight"', "unknown task 'lightweight'"),
        ('"lightweight_sr"', '"color_dn"', "training is available for classical_sr, lightweight_sr"),
        ("scale = 2", "scale = 8", "lightweight_sr takes scale 2, 3, 4, got 8"),
        ("embed_dim = 12", "embed_dim = 13", "embed_dim must be divisible by num_heads"),
        ("patch = 16", "patch = 17", "img_size must be a multiple of window_size 8"),
        ("embed_dim = 12", 'embed_dim = "wide"', "network.embed_dim must be of the type of 60, got 'wide'"),
        ("embed_dim = 12", "embed_dim = 12.5", "network.embed_dim must be of the type of 60, got 12.5"),
        ("depths = [2]", "depths = 2", "network.depths must be of the type of [6, 6, 6, 6], got 2"),
        ("depths = [2]", 'depths = ["2"]', "network.depths must be of the type of [6, 6, 6, 6], got ['2']"),
    ],
)
def test_a_wrong_configuration_is_one_line_that_names_the_key(toml, old, new, message):
    assert message in refusal(toml(old, new))


def test_bad_toml_and_a_missing_file_are_refused(toml, tmp_path):
    assert refusal(toml("[data]", "[data")).startswith("not valid TOML: ")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    assert refusal(tmp_path / "binary.toml").startswith("not valid TOML: ")
    with pytest.raises(FileNotFoundError, match=r"no configuration at nowhere\.toml"):
        load_config("nowhere.toml")


def test_values_may_be_overridden_from_outside(toml):
    overrides = ["data.train=other/images", "optimizer.lr=1e-3", "network.depths=[1, 1]", "network.num_heads=[2, 2]"]
    config = load_config(toml(), [*overrides, "loss.name=charbonnier", "compile=true", "name=a.b"])
    assert config.data.train == Path("other/images")
    assert config.optimizer.lr == 1e-3
    assert config.network_config().depths == (1, 1)
    assert config.loss.name == "charbonnier"
    assert config.compile is True
    assert config.name == "a.b"


@pytest.mark.parametrize("override", ["data.patch", "=3", ""])
def test_an_override_that_is_none_is_refused(toml, override):
    with pytest.raises(ValueError, match=r"--set takes section\.key=value, got"):
        load_config(toml(), [override])


def test_an_override_below_a_value_is_refused(toml):
    with pytest.raises(ValueError, match="scale is a value, not a section"):
        load_config(toml(), ["scale.x=3"])


def test_an_override_is_checked_like_the_file(toml):
    assert refusal(toml(), "data.pach=3") == "unknown key data.pach; did you mean patch?"
    assert "got -1" in refusal(toml(), "schedule.iterations=-1")


def test_a_configuration_cannot_be_changed(toml):
    config = load_config(toml())
    with pytest.raises(ValueError, match="frozen"):
        config.scale = 3


def test_the_command_trains_and_goes_on(images, toml, tmp_path, capsys):
    words = ["train", "--config", str(toml()), "--set", f"data.train={images}", "--set", "data.batch=1"]
    words += ["--run", str(tmp_path / "run"), "--device", "cpu"]
    assert main([*words, "--set", "schedule.iterations=2"]) == 0
    assert "small.pth: " in capsys.readouterr().out
    assert main([*words, "--set", "schedule.iterations=3"]) == 0
    assert "going on at step 2 of" in capsys.readouterr().out
    assert read_checkpoint(tmp_path / "run" / "small.pth").step == 3
    assert main([*words, "--set", "schedule.iterations=1", "--fresh"]) == 0
    assert read_checkpoint(tmp_path / "run" / "small.pth").step == 1


def test_a_dry_run_prints_the_configuration_and_trains_nothing(toml, tmp_path, capsys):
    assert main(["train", "--config", str(toml()), "--run", str(tmp_path / "run"), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert '"iterations": 12' in out
    assert "parameters: " in out
    assert not (tmp_path / "run").exists()


def test_the_command_refuses_in_one_line(toml, capsys):
    assert main(["train", "--config", str(toml("patch", "pach"))]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("unknown key data.pach; did you mean patch?")
