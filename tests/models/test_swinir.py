"""The network against goldens of the released one, its gradients, its configuration and its state dict."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import DATA
from golden_state import state

from swinir.models.complexity import count_parameters
from swinir.models.swinir import RESI_CONNECTIONS, RSTB, NetworkConfig, SwinIR
from swinir.models.windows import layer_windows
from swinir.weights.infer_config import infer_network

GOLDENS = sorted((DATA / "network").glob("*.npz"))
TINY = NetworkConfig(
    upscale=2, upsampler="pixelshuffledirect", embed_dim=12, depths=(2, 2), num_heads=(3, 3), img_size=16
)


def golden(path, dtype):
    data = np.load(path)
    config = NetworkConfig.from_dict(json.loads(str(data["config"])))
    network = SwinIR(config).eval()
    weights = state(json.loads(str(data["shapes"])), seed=1, img_range=config.img_range)
    missing, surplus = network.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()}, strict=False)
    assert not missing
    assert not surplus
    pairs = [(data[k], data["output_" + k.removeprefix("input_")]) for k in data.files if k.startswith("input_")]
    return network.to(dtype), [(torch.from_numpy(a).to(dtype), torch.from_numpy(b).to(dtype)) for a, b in pairs]


def assert_outputs_are_those_of_the_released_network(path, device):
    network, pairs = golden(path, torch.float64)
    network.to(device)
    with torch.no_grad():
        for lq, expected in pairs:
            assert (network(lq.to(device)).cpu() - expected).abs().max().item() < 1e-6


@pytest.mark.parametrize("path", GOLDENS, ids=lambda p: p.stem)
def test_outputs_are_those_of_the_released_network(path):
    assert len(GOLDENS) == 17  # one for every path through the architecture
    assert_outputs_are_those_of_the_released_network(path, "cpu")


@pytest.mark.gpu
@pytest.mark.parametrize("path", GOLDENS, ids=lambda p: p.stem)
def test_outputs_on_a_gpu_are_those_of_the_released_network(path, cuda):
    assert_outputs_are_those_of_the_released_network(path, cuda)


def released():
    import gzip

    shapes = json.loads(gzip.decompress((DATA / "official_shapes.json.gz").read_bytes()))
    configs = json.loads((DATA / "official_configs.json").read_text())
    return [(name, configs[name], shapes[name]) for name in shapes]


@pytest.mark.parametrize(("name", "facts", "shapes"), released(), ids=lambda v: v if isinstance(v, str) else "")
def test_state_dict_has_the_keys_and_shapes_of_the_released_file(name, facts, shapes):
    config = NetworkConfig.from_dict(facts["config"])
    with torch.device("meta"):
        ours = {k: list(v.shape) for k, v in SwinIR(config).state_dict().items()}
    assert ours == shapes
    assert count_parameters(config) == facts["parameters"]


def test_an_image_does_not_depend_on_its_neighbours_in_the_batch():
    network = SwinIR(replace(TINY, patch_norm=False)).double().eval()
    lq = torch.rand(3, 3, 16, 24, dtype=torch.float64)
    before = lq.clone()
    with torch.no_grad():
        together = network(lq)
        alone = torch.cat([network(image[None]) for image in lq])
    assert (together - alone).abs().max() < 1e-12
    assert torch.equal(lq, before)


def test_every_parameter_gets_a_gradient():
    for upsampler, scale in (("pixelshuffle", 2), ("pixelshuffledirect", 2), ("nearest+conv", 4), ("", 1)):
        network = SwinIR(replace(TINY, upsampler=upsampler, upscale=scale))
        network(torch.rand(1, 3, 16, 16)).square().sum().backward()
        without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert not without


def test_gradients_agree_with_finite_differences():
    torch.manual_seed(0)
    network = SwinIR(replace(TINY, embed_dim=6, depths=(2,), num_heads=(2,))).double()
    lq = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    for name in ("conv_first.weight", "layers.0.residual_group.blocks.1.attn.relative_position_bias_table"):
        parameter = dict(network.named_parameters())[name]
        (gradient,) = torch.autograd.grad(network(lq).square().mean(), parameter)
        direction = torch.randn_like(parameter)
        with torch.no_grad():
            parameter += 1e-5 * direction
            above = network(lq).square().mean()
            parameter -= 2e-5 * direction
            below = network(lq).square().mean()
        assert (above - below).item() / 2e-5 == pytest.approx((gradient * direction).sum().item(), rel=1e-5)


def test_gradient_checkpointing_changes_no_gradient():
    torch.manual_seed(0)
    plain = SwinIR(TINY).double()
    saving = SwinIR(replace(TINY, use_checkpoint=True)).double()
    saving.load_state_dict(plain.state_dict())
    lq = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    gradients = []
    for network in (plain, saving):
        network(lq).square().sum().backward()
        gradients.append([p.grad for p in network.parameters()])
    assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-12) for a, b in zip(*gradients, strict=True))


def test_drop_path_acts_in_training_only():
    torch.manual_seed(0)
    network = SwinIR(replace(TINY, drop_path_rate=0.5))
    lq = torch.rand(1, 3, 16, 16)
    network.train()
    assert not torch.equal(network(lq), network(lq))
    network.eval()
    assert torch.equal(network(lq), network(lq))


def test_derived_buffers_of_another_training_size_are_ignored_on_loading():
    network, other = SwinIR(TINY), SwinIR(replace(TINY, img_size=32))
    network.load_state_dict(other.state_dict())
    assert network.state_dict()["layers.0.residual_group.blocks.1.attn_mask"].shape == (4, 64, 64)


def test_pickled_and_exported_networks_compute_the_same():
    network = SwinIR(TINY).eval()
    lq = torch.rand(1, 3, 24, 16)
    with torch.no_grad():
        assert torch.equal(pickle.loads(pickle.dumps(network))(lq), network(lq))
        exported = torch.export.export(network, (lq,)).module()
        assert torch.allclose(exported(lq), network(lq), atol=1e-6)


def test_bfloat16_autocast_stays_close_and_keeps_a_float32_output():
    network, pairs = golden(DATA / "network" / "pixelshuffledirect_x2.npz", torch.float32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for lq, expected in pairs:
            restored = network(lq)
            assert restored.dtype == torch.float32
            assert 10 * torch.log10(1 / (restored - expected).square().mean()) > 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"upsampler": "pixelshufle"}, "unknown upsampler 'pixelshufle'"),
        ({"upsampler": "nearest+conv", "upscale": 3}, "needs an upscale of 2 or 4, got 3"),
        ({"upsampler": "pixelshuffle", "upscale": 6}, "3 or a power of two"),
        ({"upsampler": "", "upscale": 2}, "needs an upscale of 1, got 2"),
        ({"resi_connection": "2conv"}, "unknown resi_connection '2conv'"),
        ({"embed_dim": 61}, "divisible by num_heads"),
        ({"depths": (6, 6)}, "one positive number for each RSTB"),
        ({"img_size": 50}, "multiple of window_size 8"),
        ({"drop_path_rate": 1.0}, r"in \[0, 1\)"),
        ({"window_size": 0}, "window_size must be from 1 to"),
        ({"windowsize": 8}, "unknown network option 'windowsize'"),
    ],
)
def test_an_impossible_option_is_refused_with_what_is_allowed(options, message):
    with pytest.raises(ValueError, match=message):
        NetworkConfig.from_dict(options)


@pytest.mark.parametrize(
    ("variant", "closing"),
    [
        ("none", lambda dim: 9 * dim**2 + dim),
        ("1conv", lambda dim: 9 * dim**2 + dim),
        ("1x1", lambda dim: dim**2 + dim),
        ("3conv", lambda dim: 18 * dim * (dim // 4) + dim + (dim // 4) ** 2 + 2 * (dim // 4)),
    ],
)
def test_variants_of_the_rstb_have_the_parameters_of_their_convolutions(variant, closing):
    network = SwinIR(replace(TINY, resi_connection=variant))
    blocks = [module for module in network.modules() if isinstance(module, RSTB)]
    for part in (*(block.conv for block in blocks), network.conv_after_body):
        assert sum(p.numel() for p in part.parameters()) == closing(TINY.embed_dim)
    dim, heads, hidden = TINY.embed_dim, 3, 2 * TINY.embed_dim
    layer = 4 * dim**2 + 4 * dim + 2 * dim * hidden + hidden + dim + 4 * dim + 15**2 * heads
    others = 27 * dim + dim + 4 * dim + 9 * dim * 12 + 12  # first convolution, two norms, reconstruction
    assert count_parameters(network.config) == 4 * layer + 3 * closing(dim) + others


@pytest.mark.parametrize("variant", RESI_CONNECTIONS)
def test_an_rstb_passes_its_input_on_unless_it_has_no_residual(variant):
    config = replace(TINY, resi_connection=variant)
    block = next(module for module in SwinIR(config).modules() if isinstance(module, RSTB))
    for parameter in block.conv.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.rand(1, config.embed_dim, 16, 24)
    result = block(x, *layer_windows(16, 24, 8, x.device, shifted=True))
    assert torch.equal(result, torch.zeros_like(x) if variant == "none" else x)


def test_weights_without_the_residual_are_not_taken_for_those_with_it():
    """Their shapes are the same, so names must tell: here, and in programs that know the default only."""
    state = SwinIR(replace(TINY, resi_connection="none")).state_dict()
    assert infer_network(state)[0].resi_connection == "none"
    with pytest.raises(RuntimeError, match=r"layers\.0\.conv\.weight"):
        SwinIR(TINY).load_state_dict(state)


def test_input_of_the_wrong_shape_is_refused():
    network = SwinIR(TINY)
    for shape in ((3, 16, 16), (1, 1, 16, 16), (1, 3, 0, 16)):
        with pytest.raises(ValueError, match=r"input must be \(B, 3, H, W\)"):
            network(torch.zeros(shape))


def test_position_embedding_takes_only_the_training_size():
    network = SwinIR(replace(TINY, ape=True))
    with pytest.raises(ValueError, match="16x16, got 24x16"):
        network(torch.zeros(1, 3, 24, 16))
