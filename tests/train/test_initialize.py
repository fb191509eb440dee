"""Networks to train: the seed's weights, or another checkpoint's, layer by layer."""

import pytest
import torch
from training import SMALL, configuration, difference

from swinir.models.any_scale import at_scale
from swinir.models.swinir import NetworkConfig, SwinIR
from swinir.train.config import InitConfig
from swinir.train.initialize import build_network, describe_weights, start_from, write_weights
from swinir.weights import zoo
from swinir.weights.checkpoint import load_model, read_checkpoint, write_checkpoint
from swinir.weights.verify import sha256

BUNDLED = "lightweight_sr_x1-4_tiny"


@pytest.fixture
def checkpoint(tmp_path):
    """Weights of the small network from another seed."""
    network = build_network(configuration("images", seed=9))
    write_checkpoint(tmp_path / "other.pth", network.state_dict(), network.config)
    return tmp_path / "other.pth"


def refusal(config, init):
    network = build_network(config)
    before = build_network(config)
    with pytest.raises(ValueError, match="does not fit the network") as caught:
        start_from(network, init)
    assert difference(network, before) == 0
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_seed_decides_the_first_weights_and_the_global_generator_stays():
    before = torch.get_rng_state()
    one, same, other = (build_network(configuration("images", seed=seed)) for seed in (1, 1, 2))
    assert difference(one, same) == 0
    assert difference(one, other) > 0
    assert start_from(one, InitConfig()) == {}
    assert difference(one, same) == 0
    assert torch.equal(before, torch.get_rng_state())


def test_all_weights_of_a_checkpoint_are_copied_and_it_is_named(checkpoint):
    network = build_network(configuration("images"))
    facts = start_from(network, InitConfig(weights=str(checkpoint)))
    assert difference(network, build_network(configuration("images", seed=9))) == 0
    assert facts == {"weights": "other.pth", "sha256": sha256(checkpoint), "fresh": []}
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_layers_that_do_not_fit_are_named_with_the_way_out(checkpoint):
    message = refusal(configuration("images", scale=3), InitConfig(weights=str(checkpoint)))
    assert "upsample.0.weight (12x12x3x3 for 27x12x3x3)" in message
    assert message.endswith("""; to leave such layers fresh: --set 'init.allow_mismatch=["upsample"]'""")


def test_layers_that_are_missing_or_left_over_are_named(checkpoint):
    deeper, shallower = (SMALL | {"depths": [depth]} for depth in (3, 1))
    message = refusal(configuration("images", network=deeper), InitConfig(weights=str(checkpoint)))
    assert "layers.0.residual_group.blocks.2.norm1.weight (missing)" in message
    assert " and 5 more; " in message
    message = refusal(configuration("images", network=shallower), InitConfig(weights=str(checkpoint)))
    assert "layers.0.residual_group.blocks.1.norm1.weight (not in the network)" in message


def test_permission_for_one_layer_is_none_for_another_and_unknown_names_are_refused(checkpoint):
    config = configuration("images", scale=3, network=SMALL | {"depths": [3]})
    message = refusal(config, InitConfig(weights=str(checkpoint), allow_mismatch=("layers.0",)))
    assert "upsample.0.weight" in message
    assert "blocks.2" not in message
    with pytest.raises(ValueError, match="nonsense"):
        start_from(build_network(config), InitConfig(weights="nonsense"))


def test_layers_that_may_differ_are_left_fresh_and_the_rest_is_copied(checkpoint):
    config = configuration("images", scale=3)
    network, fresh = build_network(config), dict(build_network(config).named_parameters())
    facts = start_from(network, InitConfig(weights=str(checkpoint), allow_mismatch="upsample"))
    assert facts["fresh"] == ["upsample.0.bias", "upsample.0.weight"]
    known = read_checkpoint(checkpoint).state
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, fresh[name] if name.startswith("upsample") else known[name])


def test_a_model_of_the_zoo_is_known_by_its_name():
    model = load_model(BUNDLED, device="cpu")
    values = {key: model.config.to_dict()[key] for key in ("embed_dim", "depths", "num_heads", "mlp_ratio")}
    network = build_network(configuration("images", network=values))
    facts = start_from(network, InitConfig(weights=BUNDLED, adapt_scale=True))
    assert facts["sha256"] == sha256(zoo.locate(BUNDLED))
    assert facts["fresh"] == []
    assert difference(network, at_scale(model, 2)) == 0


@pytest.mark.parametrize(("task", "key"), [("lightweight_sr", "params"), ("real_sr", "params_ema")])
def test_weights_are_written_in_the_released_layout(tmp_path, task, key):
    config = configuration("images", task=task, network=SMALL | {"num_feat": 8})
    network = build_network(config)
    write_weights(tmp_path / "x.pth", network, config, 7)
    checkpoint = read_checkpoint(tmp_path / "x.pth")
    assert (checkpoint.task, checkpoint.step, checkpoint.key) == (task, 7, key)
    assert checkpoint.network == config.network_config()
    assert isinstance(checkpoint.network, NetworkConfig)
    assert difference(network, load_model(tmp_path / "x.pth", device="cpu")) == 0
    path = tmp_path / "x.pth"
    assert describe_weights(path) == {"file": "x.pth", "bytes": path.stat().st_size, "sha256": sha256(path)}


@pytest.mark.parametrize("scale", [3, 4])
def test_a_reconstruction_of_another_scale_starts_from_the_nearest_subpixels(scale, tmp_path):
    small = {"embed_dim": 12, "depths": (2,), "num_heads": (2,), "img_size": 16, "upsampler": "pixelshuffledirect"}
    torch.manual_seed(0)
    network, other = SwinIR(NetworkConfig(upscale=2, **small)), SwinIR(NetworkConfig(upscale=scale, **small))
    write_checkpoint(tmp_path / "x2.pth", network.state_dict(), network.config)
    start_from(other, InitConfig(weights=str(tmp_path / "x2.pth"), adapt_scale=True))
    x = torch.rand(1, 3, 16, 24)
    with torch.no_grad():
        double, enlarged = network(x), other(x)
    rows, cols = (((torch.arange(n * scale) + 0.5) * 2 / scale).long() for n in (16, 24))
    assert torch.allclose(enlarged, double[..., rows[:, None], cols], atol=1e-6)


def test_a_network_of_any_scale_equals_the_one_that_it_starts_from_at_its_scale(tmp_path):
    small = {"embed_dim": 12, "depths": (2,), "num_heads": (2,), "img_size": 16}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = SwinIR(NetworkConfig(upscale=2, upsampler="pixelshuffledirect", **small))
        other = SwinIR(NetworkConfig(upscale=4, upsampler="any", **small))
    write_checkpoint(tmp_path / "x2.pth", network.state_dict(), network.config)
    facts = start_from(other, InitConfig(weights=str(tmp_path / "x2.pth"), adapt_scale=True))
    assert facts["fresh"] == [f"phase_weights.fc{i}.{name}" for i in (1, 2) for name in ("bias", "weight")]
    x = torch.rand(1, 3, 16, 24)
    with torch.no_grad():
        assert torch.allclose(other(x, (32, 48)), network(x), atol=1e-5)


@pytest.mark.parametrize(("upsampler", "scale"), [("pixelshuffledirect", 3), ("any", 2)])
def test_a_network_equals_the_one_of_any_scale_that_it_starts_from(upsampler, scale, tmp_path):
    small = {"embed_dim": 12, "depths": (2,), "num_heads": (2,), "img_size": 16}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = SwinIR(NetworkConfig(upscale=4, upsampler="any", **small))
        network.conv_coefficients.reset_parameters()
        torch.nn.init.normal_(network.phase_weights.fc2.weight, std=0.1)
        other = SwinIR(NetworkConfig(upscale=scale, upsampler=upsampler, **small))
    write_checkpoint(tmp_path / "any.pth", network.state_dict(), network.config)
    assert start_from(other, InitConfig(weights=str(tmp_path / "any.pth"), adapt_scale=True))["fresh"] == []
    x = torch.rand(1, 3, 16, 24)
    with torch.no_grad():
        assert torch.allclose(other(x), network(x, (16 * scale, 24 * scale)), atol=1e-5)


def test_adapting_the_scale_needs_the_same_kind_of_reconstruction(tmp_path):
    small = {"embed_dim": 12, "depths": (2,), "num_heads": (2,), "img_size": 16}
    network = SwinIR(NetworkConfig(upscale=2, upsampler="pixelshuffle", **small))
    write_checkpoint(tmp_path / "x2.pth", network.state_dict(), network.config)
    other = SwinIR(NetworkConfig(upscale=4, upsampler="pixelshuffledirect", **small))
    with pytest.raises(ValueError, match="needs networks that end in pixelshuffledirect, got pixelshuffle and"):
        start_from(other, InitConfig(weights=str(tmp_path / "x2.pth"), adapt_scale=True))
