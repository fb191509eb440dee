"""Training configurations: checks, defaults from the task, and errors that name the key."""

from dataclasses import replace
from pathlib import Path

import pytest
from training import configuration

from swinir.train.config import TrainConfig, load_config, varied
from swinir.train.recipes import standard_config

ROOT = Path(__file__).parents[2]
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
        ('"lightweight_sr"', '"color_dn"', "color_dn takes scale 1, got 2"),
        ("scale = 2", "scale = [4, 1.1]", "scale must go from low to high, got 4 to 1.1"),
        (
            "scale = 2",
            'scale = [1.1, 4]\ndegradation = {kind = "bsrgan"}',
            "a range of scales needs the degradation 'bicubic', got 'bsrgan'",
        ),
        ("scale = 2", "scale = 8", "lightweight_sr takes scale 2, 3, 4, got 8"),
        ("embed_dim = 12", "embed_dim = 13", "embed_dim must be divisible by num_heads"),
        ("patch = 16", "patch = 17", "img_size must be a multiple of window_size 8"),
        ("embed_dim = 12", 'embed_dim = "wide"', "network.embed_dim must be of the type of 60, got 'wide'"),
        ("embed_dim = 12", "embed_dim = 12.5", "network.embed_dim must be of the type of 60, got 12.5"),
        ("depths = [2]", "depths = 2", "network.depths must be of the type of [6, 6, 6, 6], got 2"),
        ("depths = [2]", 'depths = ["2"]', "network.depths must be of the type of [6, 6, 6, 6], got ['2']"),
        ("[network]", '[network]\nname = "edsr"', "network.name must be swinir or rcan, got 'edsr'"),
        ("[network]", "[loss.perceptual]\nlayer = [2]\n[network]", "unknown key loss.perceptual.layer"),
    ],
)
def test_a_wrong_configuration_is_one_line_that_names_the_key(toml, old, new, message):
    assert message in refusal(toml(old, new))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ('data.train_lq=["a", "b"]', "data.train_lq needs one folder for each of data.train, got 2 for 1"),
        ("data.batch=3", "data.batch must be a multiple of accumulate, got 3 and 2"),
        ("degradation.noise=[25, 15]", "degradation.noise must go from low to high, got 25.0 to 15.0"),
        ("degradation.quality=[90, 30]", "degradation.quality must go from low to high, got 90 to 30"),
        ("degradation.quality=101", "degradation.quality"),
        ("degradation.kind=blur", "degradation.kind"),
        ("degradation.kind=noise", "degradation 'noise' does not go with scale 2"),
        ("loss.perceptual.layers=[2, 7]", "loss.perceptual: each layer needs one weight, got 2 layers and 5 weights"),
        (
            "loss.perceptual.layers=[2, 37, 16, 25, 34]",
            "loss.perceptual.layers.1: Input should be less than or equal to 36",
        ),
        ("loss.perceptual.layers=[2, 2, 16, 25, 34]", "loss.perceptual: layers must name no layer twice, got [2, 2,"),
        ("loss.perceptual.layers=[]", "loss.perceptual.layers: Tuple should have at least 1 item"),
        ("loss.name=huber", "loss.name"),
        ("data.batch=1000000000000", "data.batch: Input should be less than or equal to 1048576"),
        ("data.workers=100000", "data.workers: Input should be less than or equal to 1024"),
        ("network.embed_dim=2400000000", "embed_dim must be from 1 to 4194304, got 2400000000"),
        ("network.embed_dim=2400000", "a network has at most 8589934592 parameters"),
        ("network.depths=[1000000]", "depths must have at most 1024 layers in all, got 1000000"),
        ("ema=1", "ema: Input should be less than 1, got 1"),
        ("precision=fp8", "precision"),
        ("keep=0", "keep: Input should be greater than or equal to 1, got 0"),
        ("optimizer.name=sgd", "optimizer.name: Input should be 'adam' or 'muon', got 'sgd'"),
        ("optimizer.rest_lr=1e-3", 'optimizer.rest_lr is for optimizer.name = "muon", got 0.001 with "adam"'),
        ("optimizer.clip_norm=0", "optimizer.clip_norm: Input should be greater than 0, got 0"),
    ],
)
def test_values_that_do_not_go_together_are_refused(toml, override, message):
    assert message in refusal(toml(), "accumulate=2", override)


def test_brackets_without_end_are_not_toml(toml):
    assert "not valid TOML" in refusal(toml(new=f"\nx = {'[' * 100_000}"))
    assert "seed: Input should be a valid integer" in refusal(toml(), f"seed={'[' * 100_000}")[:300]


def test_a_range_of_scales_trains_a_network_of_any_scale():
    config = configuration("images", scale=[1.1, 4])
    network = config.network_config()
    assert (network.upsampler, network.upscale, config.protocol.scale) == ("any", 4, 4)
    assert network == replace(configuration("images").network_config(), upsampler="any", upscale=4)
    again = TrainConfig.model_validate_json(config.model_dump_json())
    assert again == config
    for options in (
        {"data": {"train_lq": "lq"}},
        {"data": {"holdout": 0, "validate_gt": "gt", "validate_lq": "lq"}},
        {"network": {"upsampler": "pixelshuffledirect"}},
        {"network": {"name": "rcan"}},
    ):
        with pytest.raises(ValueError, match="a range of scales"):
            configuration("images", scale=[1.1, 4], **options)


def test_validation_of_a_range_has_the_scales_of_the_task_within_it():
    for scale, expected in (([1.1, 4], (2, 3, 4)), ([1, 3.5], (2, 3)), ([1.1, 1.7], (1.7,)), (3, (3,))):
        assert configuration("images", scale=scale).validated_scales == expected


def test_options_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match=r"loss\.perceptual needs colour images, the task is grey"):
        configuration("images", task="gray_dn", scale=1, loss={"perceptual": {}})
    with pytest.raises(ValueError, match="two ways to validate; set one"):
        configuration("images", data={"validate_gt": "other"})
    with pytest.raises(ValueError, match=r"one folder for each of data\.train, got 1 for 2"):
        configuration("images", data={"train": ("a", "b"), "train_lq": "c"})


def test_adam_is_the_default_and_muon_has_a_second_learning_rate(toml):
    adam = load_config(toml()).optimizer
    assert (adam.name, adam.rest_lr) == ("adam", None)
    muon = load_config(toml(), ["optimizer.name=muon", "optimizer.lr=1e-2"])
    assert (muon.optimizer.name, muon.optimizer.lr, muon.optimizer.rest_lr) == ("muon", 1e-2, 1e-3)
    given = load_config(toml(), ["optimizer.name=muon", "optimizer.rest_lr=4e-4"])
    assert given.optimizer.rest_lr == 4e-4
    for config in (muon, given):
        assert TrainConfig.model_validate_json(config.model_dump_json()) == config
    assert varied(load_config(toml()), {"optimizer.name": "muon"}).optimizer.rest_lr == 1e-3


def test_muon_needs_a_pytorch_that_has_it(toml, monkeypatch):
    monkeypatch.delattr("torch.optim.Muon")
    assert load_config(toml())
    message = refusal(toml(), "optimizer.name=muon")
    assert message.startswith('optimizer.name = "muon" needs PyTorch 2.9 or newer, this is ')
    assert message.endswith('; upgrade it or set optimizer.name = "adam"')


def test_muon_is_refused_for_a_network_without_linear_layers(toml):
    path = toml("[network]\nembed_dim = 12\ndepths = [2]\nnum_heads = [2]", '[network]\nname = "rcan"')
    assert load_config(path)
    assert "needs linear layers, RCAN has none" in refusal(path, "optimizer.name=muon")


@pytest.mark.parametrize(
    ("task", "scale", "kind"),
    [
        ("classical_sr", 3, "bicubic"),
        ("lightweight_sr", 4, "bicubic"),
        ("real_sr", 4, "bsrgan"),
        ("gray_dn", 1, "noise"),
        ("color_dn", 1, "noise"),
        ("jpeg_car", 1, "jpeg"),
        ("color_jpeg_car", 1, "jpeg"),
    ],
)
def test_the_task_decides_the_degradation_and_the_network(task, scale, kind):
    config = TrainConfig.model_validate(
        {
            "name": "x",
            "task": task,
            "scale": scale,
            "data": {"train": "images", "patch": 56},
            "schedule": {"iterations": 1},
        }
    )
    assert config.degradation_kind == kind
    assert config.network_config() == config.task_row.network_for(scale, img_size=56)


def test_pairs_of_files_go_with_any_scale_and_one_folder_stands_for_a_list():
    config = configuration("images", data={"train_lq": "lq"}, degradation={"kind": "noise"})
    assert (config.scale, config.data.train) == (2, (Path("images"),))
    assert configuration(["a", "b"]).data.train == (Path("a"), Path("b"))


def test_a_complete_configuration_reads_back_as_itself():
    config = configuration("images", degradation={"noise": (5, 50)}, loss={"perceptual": {}, "adversarial": {}})
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config
    assert TrainConfig.model_validate(config.model_dump(mode="json")) == config


def test_bad_toml_and_a_missing_file_are_refused(toml, tmp_path):
    assert refusal(toml("[data]", "[data")).startswith("not valid TOML: ")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    assert refusal(tmp_path / "binary.toml").startswith("not valid TOML: ")
    with pytest.raises(FileNotFoundError, match=r"no configuration at nowhere\.toml"):
        load_config("nowhere.toml")


def test_values_may_be_overridden_from_outside(toml):
    overrides = ["data.train=other/images", "optimizer.lr=1e-3", "network.depths=[1, 1]", "network.num_heads=[2, 2]"]
    config = load_config(toml(), [*overrides, "loss.name=charbonnier", "compile=true", "name=a.b"])
    assert config.data.train == (Path("other/images"),)
    assert config.optimizer.lr == 1e-3
    assert config.network_config().depths == (1, 1)
    assert config.loss.name == "charbonnier"
    assert config.compile is True
    assert config.name == "a.b"
    with pytest.raises(ValueError, match="frozen"):
        config.scale = 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.patch", r"--set takes section\.key=value, got"),
        ("=3", r"--set takes section\.key=value, got"),
        ("scale.x=3", "scale is a value, not a section"),
    ],
)
def test_an_override_that_is_none_is_refused(toml, override, message):
    with pytest.raises(ValueError, match=message):
        load_config(toml(), [override])


def test_an_override_is_checked_like_the_file(toml):
    assert refusal(toml(), "data.pach=3") == "unknown key data.pach; did you mean patch?"
    assert "got -1" in refusal(toml(), "schedule.iterations=-1")


def test_configurations_that_come_with_the_package_are_found_there_or_in_the_source_tree(tmp_path, monkeypatch):
    assert standard_config("joint", "cpu").samefile(ROOT / "configs" / "joint" / "cpu.toml")
    (tmp_path / "swinir" / "configs" / "joint").mkdir(parents=True)
    mine = tmp_path / "swinir" / "configs" / "joint" / "cpu.toml"
    mine.write_text("")
    monkeypatch.setattr("swinir.environment.PACKAGE", tmp_path / "swinir")
    assert standard_config("joint", "cpu") == mine
    with pytest.raises(ValueError, match="one of cpu, got 'gpu'"):
        standard_config("joint", "gpu")
    with pytest.raises(FileNotFoundError, match="has no configs/ablations"):
        standard_config("ablations", "cpu")
