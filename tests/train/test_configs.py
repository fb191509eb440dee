"""The recipes in configs/: names, headers, settings, initial weights, and three small steps of every kind."""

import functools
import json
import math
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import DATA
from training import CPU, assert_same_ending, cpu_trainer, header, rows, smooth_image, train

from swinir.degradations.resize import imresize
from swinir.image_io.image import read, write
from swinir.models.swinir import NetworkConfig, SwinIR
from swinir.train.config import TrainConfig, load_config
from swinir.train.distributed import Processes
from swinir.train.images import PHOTOGRAPHS, SCIKIT_IMAGE, find_sources
from swinir.train.initialize import build_network
from swinir.train.optimizer import Optimization, learning_rate
from swinir.train.perceptual import PREFIX, vgg19_features
from swinir.weights.checkpoint import load_model, read_checkpoint, write_checkpoint
from swinir.weights.zoo import RELEASED, SIZE_WORDS, WeightsName, find, parse_name

FOLDER = Path(__file__).parents[2] / "configs"
CONFIGS = {
    path.relative_to(FOLDER).with_suffix("").as_posix(): path
    for path in sorted(FOLDER.rglob("*.toml"))
    if path.parent.name != "joint"  # comparisons, not single trainings: test_reproduce_joint.py
}
H100 = "lightweight_sr/small_x2_h100"  # for a GPU that is at hand for minutes
OTHERS = ("debug/", "baselines/", "ablations/", H100)
NAMED = [key for key in CONFIGS if not key.startswith(OTHERS)]  # as the zoo names weights
RECIPES = [key for key in NAMED if "/tiny" not in key and not key.startswith("any_scale/")]  # of the released files
OFFICIAL = json.loads((DATA / "official_configs.json").read_text())


@functools.cache
def loaded(key: str) -> TrainConfig:
    return load_config(CONFIGS[key])


def parts(config: TrainConfig) -> WeightsName:
    return parse_name(config.name)


@functools.cache
def aliases() -> dict[str, str]:
    """Names of the zoo to keys: of recipes by the released files' table, of other models by their aliases."""
    others = {
        "_".join(filter(None, (config.task, name.level_text, SIZE_WORDS[name.size], name.objective))): key
        for key, config, name in ((key, loaded(key), parts(loaded(key))) for key in NAMED if key not in RECIPES)
    }
    return others | {find(loaded(key).name).alias: key for key in RECIPES}


def sibling(key: str) -> str:
    """The key of the recipe whose weights another one starts from."""
    weights = loaded(key).init.weights
    if weights in aliases():
        return aliases()[weights]
    return next(other for other in NAMED if loaded(other).name == Path(weights).stem)


SIBLINGS = [key for key in CONFIGS if "[init]" in CONFIGS[key].read_text()]
FINE_TUNED = [key for key in RECIPES if key in SIBLINGS and not key.endswith("_gan")]
GANS = [key for key in RECIPES if key.endswith("_gan")]


# Names and networks.


def test_every_configuration_of_the_project_has_a_network():
    for key in CONFIGS:
        if loaded(key).network_name == "swinir":
            assert shapes(loaded(key)), key


def test_names_agree_with_the_settings_and_the_place_of_the_file():
    ids = {entry.parts.task: entry.parts.id for entry in RELEASED}
    for key in NAMED:
        config, name = loaded(key), parts(loaded(key))
        folder, stem = key.split("/")
        level = {"x": config.top_scale, "noise": config.noise, "jpeg": config.jpeg}[name.kind]
        if name.level_to is not None:
            ranges = {"x": config.scale, "noise": config.degradation.noise, "jpeg": config.degradation.quality}
            assert tuple(map(int, ranges[name.kind])) == (name.level, name.level_to), key
            assert name.covers(level), key
        assert config.task == name.task, key
        assert folder == ("any_scale" if isinstance(config.scale, tuple) else config.task), key
        assert name.id == ids.get(config.task, "007"), key  # one more than the released program's tasks
        window = config.network_config().window_size
        assert (name.patch, name.window) == (config.data.patch, window), key
        assert name.level == level or name.level_to is not None, key
        assert (name.objective == "GAN") == (config.loss.adversarial is not None), key
        first = name.data.lower() if folder == "classical_sr" else SIZE_WORDS[name.size]
        assert stem == "_".join(filter(None, (first, name.level_text, name.objective.lower()))), key


def test_every_released_file_has_one_recipe_of_its_network_with_the_stochastic_depth_of_its_constructor():
    assert sorted(loaded(key).name for key in RECIPES) == sorted(entry.name for entry in RELEASED)
    for key in RECIPES:
        config = loaded(key)
        official = OFFICIAL[config.name.replace("_PSNR", "_GAN")]
        released = NetworkConfig.from_dict(official["config"])
        assert config.network_config() == replace(released, drop_path_rate=0.1), key
        assert config.task_row.weights_key == official["params_key"], key


# Headers.


def test_headers_say_what_to_expect_and_how_to_run_this_very_file():
    for key in [*RECIPES, "debug/tiny", H100, "any_scale/medium_x1-4"]:
        fields = header(CONFIGS[key])
        assert fields[""], key
        for label in ("Reproduces", "Expect", "Hardware", "Data", "Status"):
            assert fields[label], (key, label)
        assert fields["Command"] == f"swinir train --config configs/{key}.toml"
        lines = CONFIGS[key].read_text().splitlines()
        assert max(len(line) for line in lines if not line.startswith("weights = ")) <= 110, key


@pytest.mark.parametrize("key", RECIPES)
def test_header_of_a_recipe_gives_numbers_and_their_sources(key):
    config, fields = loaded(key), header(CONFIGS[key])
    entry = find(config.name)
    assert entry.file in fields["Reproduces"]
    assert entry.published in fields["Expect"]
    assert entry.published or re.search("no (PSNR|number) is published", fields["Expect"], re.I)
    assert "options/swinir/train_swinir_" in fields["Source"]
    assert f"{config.schedule.iterations:,} iterations of {config.data.batch} patches" in fields["Schedule"]
    assert f"{config.data.patch}x{config.data.patch}" in fields["Schedule"]
    assert "published: " in fields["Hardware"] or "(estimated from " in fields["Hardware"]
    assert fields["Status"] == "Nobody has run this file to the end yet."
    assert fields["8 GPUs"] == "the same after torchrun --nproc-per-node 8 -m --"
    accumulate = int(re.search(r"--set accumulate=(\d+)", fields["One GPU"])[1])
    assert load_config(CONFIGS[key], [f"accumulate={accumulate}"]).accumulate > 1
    for folder in config.data.train:
        assert folder.as_posix() in fields["Data"] or "that [data] names" in fields["Data"]


# Settings.


@pytest.mark.parametrize("key", RECIPES)
def test_settings_of_a_recipe_are_the_papers_and_written_out(key):
    values, config = tomllib.loads(CONFIGS[key].read_text()), loaded(key)
    written = {name: set(values[name]) for name in ("data", "network", "loss", "optimizer", "schedule")}
    assert "ema" in values
    assert {"patch", "batch"} <= written["data"]
    assert {"lr", "betas"} <= written["optimizer"]
    assert {"iterations", "milestones"} <= written["schedule"]
    assert "drop_path_rate" in written["network"]
    assert "name" in written["loss"]
    assert values["loss"]["name"] == ("l1" if config.task.endswith("_sr") else "charbonnier")
    assert config.loss.name == "l1" or "epsilon" in written["loss"]
    assert (config.loss.perceptual is None) == (config.loss.adversarial is None)
    schedule = config.schedule
    assert list(schedule.milestones) == sorted(set(schedule.milestones))
    assert schedule.milestones[-1] == schedule.iterations
    assert learning_rate(schedule, 1.0, schedule.iterations - 1) == 0.5**4


def test_validation_lies_where_the_test_sets_are_described():
    described = (FOLDER.parent / "testsets" / "README.md").read_text()
    for key in RECIPES:
        data = loaded(key).data
        assert bool(data.holdout) != bool(data.validate_gt), key
        if data.validate_gt:
            assert f"| {data.validate_gt.parts[1]} |" in described, key
        if data.validate_lq:
            assert data.validate_lq.as_posix() == f"testsets/Set5/LR_bicubic/X{loaded(key).scale}"


def test_the_recipe_for_minutes_trains_the_released_small_network():
    ours, released = (loaded(key).network_config() for key in (H100, "lightweight_sr/small_x2"))
    assert replace(ours, img_size=64, drop_path_rate=0.1) == released
    for iterations in (5000, 60_000):
        longer = load_config(CONFIGS[H100], [f"schedule.iterations={iterations}"])
        assert longer.schedule.iterations == iterations
        assert learning_rate(longer.schedule, 1.0, iterations) == pytest.approx(0.01)


# Siblings.


def test_fine_tuned_recipes_have_half_the_rate_and_half_the_schedule():
    for key in FINE_TUNED:
        config, first = loaded(key), loaded(sibling(key))
        assert first.init.weights is None, key
        assert config.task == first.task, key
        assert config.optimizer == first.optimizer.model_copy(update={"lr": first.optimizer.lr / 2}), key
        assert config.schedule.milestones == tuple(m // 2 for m in first.schedule.milestones), key
        assert config.loss == first.loss, key
        for name in ("train", "patch", "batch"):
            assert getattr(config.data, name) == getattr(first.data, name), (key, name)


def test_a_gan_starts_from_the_network_of_least_error():
    for key in GANS:
        config, first = loaded(key), loaded(sibling(key))
        assert first.name == config.name.replace("_GAN", "_PSNR"), key
        assert config.network_config() == first.network_config(), key
        assert (config.data, config.degradation) == (first.data, first.degradation), key


def test_weights_are_those_of_the_siblings_run_or_its_released_file():
    for key in [*FINE_TUNED, *GANS]:
        first = loaded(sibling(key))
        assert loaded(key).init.weights == f"runs/{first.name}/{first.name}.pth"
        (alias,) = re.findall(r'^# or the released file: weights = "(.+)"$', CONFIGS[key].read_text(), re.M)
        assert find(alias).name == first.name
        assert f"configs/{sibling(key)}.toml" in header(CONFIGS[key])["Start"]


def test_the_first_of_each_kind_starts_from_nothing():
    assert {key for key in RECIPES if key not in SIBLINGS} == {
        "classical_sr/df2k_x2",
        "classical_sr/div2k_x2",
        "lightweight_sr/small_x2",
        "real_sr/medium_x2_psnr",
        "real_sr/medium_x4_psnr",
        "real_sr/large_x4_psnr",
        "gray_dn/medium_noise15",
        "color_dn/medium_noise15",
        "jpeg_car/medium_jpeg40",
        "color_jpeg_car/medium_jpeg40",
    }


ADAPTED = ("upsample.0", "conv_coefficients", "phase_weights")  # layers that `init.adapt_scale` converts or starts


@functools.cache
def network_shapes(network: NetworkConfig) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {name: p.shape for name, p in SwinIR(network).named_parameters()}


def shapes(config: TrainConfig) -> dict[str, torch.Size]:
    return network_shapes(config.network_config())


def test_the_layers_allowed_to_differ_from_a_sibling_are_those_that_do():
    for key in SIBLINGS:
        ours, theirs = shapes(loaded(key)), shapes(loaded(sibling(key)))
        names, init = ours.keys() | theirs.keys(), loaded(key).init
        allowed_names = init.allow_mismatch + (ADAPTED if init.adapt_scale else ())
        differing = {n for n in names if ours.get(n) != theirs.get(n)}
        allowed = {n for n in names if n.startswith(allowed_names)}
        assert differing == allowed if key in RECIPES else differing <= allowed, key
        assert all(any(name.startswith(beginning) for name in differing) for beginning in init.allow_mismatch), key


# Steps.


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Small images to train on, pairs to validate on at every scale, and VGG19's shapes with random numbers."""
    root = tmp_path_factory.mktemp("configs")
    for name in ("train", "gt", "X2", "X3", "X4", "X8"):
        (root / name).mkdir()
    for i in range(3):
        write(root / "train" / f"{i}.png", smooth_image(136 + 4 * i, 144, i))
    gt = smooth_image(48, 48, 9)
    write(root / "gt" / "a.png", gt)
    for scale in (2, 3, 4, 8):
        write(root / f"X{scale}" / f"ax{scale}.png", imresize(gt, 1 / scale))
    vgg = {
        PREFIX + name: torch.randn(t.shape) / t[0].numel() ** 0.5 for name, t in vgg19_features().state_dict().items()
    }
    torch.save(vgg, root / "vgg19.pth")
    return root


SMALL = {
    "swinir": {"embed_dim": 8, "depths": [2], "num_heads": [2], "num_feat": 8},
    "rcan": {"n_resgroups": 1, "n_resblocks": 1, "n_feats": 8, "reduction": 4},
}


def small(key: str, folders: Path, **more: object) -> TrainConfig:
    """A recipe with a small network and short training; window, reconstruction, degradation and losses stay."""
    config = loaded(key)
    values = {f"network.{name}": value for name, value in SMALL[config.network_name].items()} | {
        "data.patch": 2 * config.network_config().window_size,
        "data.batch": 1,
        "data.train": folders / "train",
        "data.cache": folders / "cache",
        "schedule.iterations": 3,
        "compile": False,
        "save_every": 3,
        "log_every": 1,
        "validate_every": 3,
    }
    if config.data.train_lq:
        values["data.train_lq"] = []  # pairs are made
    if config.data.images:
        values["data.images"] = 2
    if config.data.holdout:
        values["data.holdout"] = 1
    if config.data.validate_gt:
        values["data.validate_gt"] = folders / "gt"
    if config.data.validate_lq:
        values["data.validate_lq"] = folders / f"X{config.scale}"
    if config.loss.perceptual:
        values["loss.perceptual.weights"] = folders / "vgg19.pth"
    if config.loss.adversarial:
        values["loss.adversarial.num_feat"] = 4
    return load_config(CONFIGS[key], [f"{name}={_toml(value)}" for name, value in (values | more).items()])


def _toml(value: object) -> str:
    return json.dumps(str(value) if isinstance(value, Path) else value)


def kinds() -> list[str]:
    """One configuration for each task, network, degradation, loss, optimizer and way to start."""
    found: dict[tuple[object, ...], str] = {}
    for key, config in ((key, loaded(key)) for key in CONFIGS):
        loss, start = config.loss, (key in SIBLINGS, config.init.adapt_scale)
        terms = (loss.spectrum is None, loss.perceptual is None, loss.adversarial is None)
        loss_kind = (loss.name, terms, config.optimizer.name)
        found.setdefault((config.task, config.network_name, config.degradation_kind, loss_kind, start), key)
    return list(found.values())


@pytest.mark.parametrize("key", kinds())
def test_three_small_steps_of_every_kind_give_weights_that_load_and_resume_exactly(key, folders, tmp_path):
    if loaded(key).network_name == "rcan":
        pytest.importorskip("spandrel", reason="RCAN is in the extra `baselines`")
    start = {}
    if key in SIBLINGS:
        first = small(sibling(key), folders)
        start = {"init.weights": tmp_path / "first.pth"}
        network = build_network(first)
        entry = first.task_row.weights_key
        write_checkpoint(tmp_path / "first.pth", network.state_dict(), network.config, key=entry, task=first.task)
    config = small(key, folders, **start)
    trainer = train(config, tmp_path / "whole")
    fresh = trainer.train_step.init.get("fresh", [])
    assert all(name.startswith((*config.init.allow_mismatch, "phase_weights.")) for name in fresh)
    found = rows(tmp_path / "whole")
    assert [row["step"] for row in found if "loss" in row and math.isfinite(row["loss"])] == [1, 2, 3]
    assert any("psnr" in row and math.isfinite(row["psnr"]) for row in found)
    if config.network_name == "swinir":
        assert load_model(trainer.weights_path, device="cpu").config == config.network_config()
        checkpoint = read_checkpoint(trainer.weights_path)
        assert (checkpoint.task, checkpoint.step, checkpoint.key) == (config.task, 3, config.task_row.weights_key)
    first_part = cpu_trainer(config, tmp_path / "parts")
    assert not first_part.fit(stop=lambda: first_part.step == 1)
    resumed = cpu_trainer(config, tmp_path / "parts")
    assert resumed.resume()
    assert resumed.fit()
    assert_same_ending(tmp_path / "parts", tmp_path / "whole")


def architectures() -> list[str]:
    """A recipe for each distinct body and reconstruction, whatever the scale, without a discriminator."""
    found: dict[str, str] = {}
    for key in (key for key in RECIPES if key not in GANS):
        options = loaded(key).network_config().to_dict()
        found.setdefault(str({name: options[name] for name in options if name not in ("img_size", "upscale")}), key)
    return list(found.values())


@pytest.mark.slow
@pytest.mark.parametrize("key", architectures())
def test_one_step_of_every_network_at_its_full_size(key):
    side = 2 * loaded(key).network_config().window_size
    config = load_config(CONFIGS[key], [f"data.patch={side}", "data.batch=1"])
    optimization = Optimization(build_network(config), config, Processes(CPU))
    generator = torch.Generator().manual_seed(0)
    channels = config.network_config().in_chans
    lq, gt = (torch.rand(1, channels, n, n, generator=generator) for n in (side, side * config.scale))
    result = optimization.step([(lq, gt)], 0)
    assert math.isfinite(result.loss)
    assert result.grad_norm > 0


# Images that every installation has.


def test_photographs_of_scikit_image_stand_for_a_folder(folders):
    sources = find_sources([SCIKIT_IMAGE])
    assert [source.name for source in sources] == list(PHOTOGRAPHS) == sorted(PHOTOGRAPHS)
    for source in sources:
        image = read(source.gt)
        assert image.shape[2] == 3
        assert min(image.shape[:2]) >= 300
        assert np.ptp(image.astype(int), axis=2).max() > 0
    names = [source.name for source in find_sources([folders / "train", SCIKIT_IMAGE])]
    assert names[2:5] == ["0/2.png", "1/astronaut.png", "1/chelsea.png"]
