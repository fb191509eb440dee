"""Perceptual loss: VGG19 by hand with random weights, and files that do or do not hold it."""

import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from swinir.train.config import PerceptualConfig
from swinir.train.perceptual import FILE, LAYER_WEIGHTS, LAYERS, PerceptualLoss, load_vgg19, vgg19_features
from swinir.weights.safe_load import CheckpointError

# Configuration E of the paper, as layers: output channels of a convolution, "R" a ReLU, "P" a pooling.
STACK = [
    *[64, "R", 64, "R", "P"],
    *[128, "R", 128, "R", "P"],
    *[256, "R", 256, "R", 256, "R", 256, "R", "P"],
    *[512, "R", 512, "R", 512, "R", 512, "R", "P"],
    *[512, "R", 512, "R", 512, "R", 512, "R", "P"],
]


def random_state(depth=None):
    """Weights that keep the size of activations, by torchvision's names."""
    generator = torch.Generator().manual_seed(0)
    state, channels = {}, 3
    for index, layer in enumerate(STACK[:depth]):
        if isinstance(layer, int):
            weight = torch.randn(layer, channels, 3, 3, generator=generator)
            state[f"features.{index}.weight"] = weight * (2 / (9 * channels)) ** 0.5
            state[f"features.{index}.bias"] = torch.randn(layer, generator=generator) * 0.1
            channels = layer
    return state


def by_hand(state, x, taps):
    x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    features = []
    for index, layer in enumerate(STACK):
        if layer == "R":
            x = x.clamp(min=0)
        elif layer == "P":
            x = F.max_pool2d(x, 2)
        else:
            x = F.conv2d(x, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1)
        if index in taps:
            features.append(x)
    return features


@pytest.fixture(scope="module")
def state():
    return random_state()


@pytest.fixture(scope="module")
def loss(state):
    return PerceptualLoss(state)


def images(seed, size=(32, 48)):
    return torch.rand((2, 3, *size), generator=torch.Generator().manual_seed(seed))


# The loss.


def test_the_stack_has_the_published_layers_and_parameters():
    with torch.device("meta"):
        stack = vgg19_features()
    kinds = {"Conv2d": lambda layer: layer.out_channels, "ReLU": lambda layer: "R", "MaxPool2d": lambda layer: "P"}
    assert [kinds[type(layer).__name__](layer) for layer in stack] == STACK
    widths = [3, *(layer for layer in STACK if isinstance(layer, int))]
    expected = sum(9 * i * o + o for i, o in pairwise(widths))
    assert sum(p.numel() for p in stack.parameters()) == expected == 20_024_384


def test_names_and_shapes_are_torchvisions():
    models = pytest.importorskip("torchvision.models", reason="torchvision is the oracle here")
    with torch.device("meta"):
        theirs, ours = models.vgg19().features.state_dict(), vgg19_features().state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


def test_defaults_are_the_recipes_and_the_configurations():
    config = PerceptualConfig()
    assert config.layers == LAYERS == (2, 7, 16, 25, 34)
    assert config.layer_weights == LAYER_WEIGHTS == (0.1, 0.1, 1, 1, 1)


def test_the_published_layers_close_the_stages_and_are_not_rectified():
    assert all(isinstance(STACK[layer], int) for layer in LAYERS)
    assert [layer + 2 for layer in LAYERS] == [index for index, layer in enumerate(STACK) if layer == "P"]


def test_identical_images_cost_nothing(loss):
    assert loss(images(1), images(1)).item() == 0


def test_it_is_the_weighted_distance_of_features_computed_by_hand(state, loss):
    restored, gt = images(1), images(2)
    pairs = zip(by_hand(state, restored, LAYERS), by_hand(state, gt, LAYERS), strict=True)
    expected = sum(w * (a - b).abs().mean() for w, (a, b) in zip((0.1, 0.1, 1, 1, 1), pairs, strict=True))
    assert expected > 0
    assert loss(restored, gt).item() == pytest.approx(expected.item(), rel=1e-5)


def test_layers_are_a_choice_in_any_order(state):
    restored, gt = images(1), images(2)
    chosen = PerceptualLoss(state, layers=(4, 1, 0), layer_weights=(2, 3, 5))
    first, rectified, pooled = (
        (a - b).abs().mean()
        for a, b in zip(by_hand(state, restored, (0, 1, 4)), by_hand(state, gt, (0, 1, 4)), strict=True)
    )
    assert chosen(restored, gt).item() == pytest.approx((5 * first + 3 * rectified + 2 * pooled).item(), rel=1e-5)


def test_no_layer_beyond_the_deepest_is_kept(state):
    assert list(PerceptualLoss(state, (2,), (1,)).state_dict()) == [
        f"features.{n}.{part}" for n in (0, 2) for part in ("weight", "bias")
    ]


def test_gradients_reach_the_restored_image_alone(loss):
    restored, gt = images(1).requires_grad_(), images(2).requires_grad_()
    value = loss(restored, gt)
    value.backward()
    assert (restored.grad != 0).any()
    assert gt.grad is None
    assert all(not p.requires_grad and p.grad is None for p in loss.parameters())
    with torch.no_grad():
        assert loss(restored - 1e-2 * restored.grad / restored.grad.abs().max(), gt) < value


def test_it_is_computed_in_float32_under_autocast(loss):
    restored, gt = images(1), images(2)
    expected = loss(restored, gt)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(restored, gt), expected)
    assert loss(restored.bfloat16(), gt).dtype == torch.float32


@pytest.mark.parametrize(
    "shapes", [((2, 3, 32, 32), (1, 3, 32, 32)), ((2, 1, 32, 32), (2, 1, 32, 32)), ((2, 3, 32, 32), (2, 3, 32, 48))]
)
def test_images_that_cannot_be_compared_are_refused(loss, shapes):
    with pytest.raises(ValueError, match="two batches of RGB images"):
        loss(*(torch.zeros(shape) for shape in shapes))


@pytest.mark.parametrize(
    ("layers", "weights", "message"),
    [
        ((2, 37), (1, 1), "no feature layer 37; choose from 0 to 36"),
        ((-1,), (1,), "no feature layer -1"),
        ((), (), "at least one layer"),
        ((2, 2), (1, 1), r"none twice, got \[2, 2\]"),
        ((2, 7), (1,), "got 2 layers and 1 weights"),
    ],
)
def test_a_wrong_choice_of_layers_is_refused(state, layers, weights, message):
    with pytest.raises(ValueError, match=message):
        PerceptualLoss(state, layers, weights)


# Files.


@pytest.fixture(scope="module")
def half(state):
    return {name: tensor.half() for name, tensor in state.items()}


@pytest.mark.parametrize("kind", ["torchvision", "bare", "module", "safetensors", "legacy"])
def test_the_features_are_found_in_any_file_that_holds_them(half, tmp_path, kind):
    path = tmp_path / "vgg.pth"
    if kind == "torchvision":
        torch.save(half | {"classifier.0.weight": torch.zeros(4, 4)}, path)
    elif kind == "bare":
        torch.save({name.removeprefix("features."): tensor for name, tensor in half.items()}, path)
    elif kind == "module":
        torch.save({f"module.{name}": tensor for name, tensor in half.items()}, path)
    elif kind == "legacy":
        torch.save(half, path, _use_new_zipfile_serialization=False)
    else:
        save_file(half, path)
    read = load_vgg19(path)
    assert list(read) == list(half)
    assert all(t.dtype == torch.float32 and torch.equal(t, half[name].float()) for name, t in read.items())
    PerceptualLoss(read)


def refused(path):
    with pytest.raises(CheckpointError) as caught:
        load_vgg19(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_a_missing_file_is_told_with_the_setting_that_names_it(tmp_path):
    assert "no such file; check loss.perceptual.weights" in refused(tmp_path / "none.pth")


def test_a_folder_is_no_file(tmp_path):
    assert "is a folder" in refused(tmp_path)


def test_another_network_is_told_by_what_it_lacks(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"conv_first.weight": torch.zeros(1)}, path)
    assert f"has no features.0.weight, so it is not VGG19; name torchvision's {FILE}" in refused(path)


def test_vgg16_is_not_vgg19(tmp_path):
    path = tmp_path / "vgg16.pth"
    torch.save(random_state(16), path)  # alike up to the third convolution of the third stage
    assert "has no features.16.weight" in refused(path)


def test_a_wrong_shape_is_told_with_the_right_one(tmp_path):
    path = tmp_path / "gray.pth"
    torch.save({"features.0.weight": torch.zeros(64, 1, 3, 3)}, path)
    assert "features.0.weight has shape (64, 1, 3, 3) where VGG19 has (64, 3, 3, 3)" in refused(path)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    path = tmp_path / "nan.pth"
    torch.save({"features.0.weight": torch.full((64, 3, 3, 3), float("nan"))}, path)
    assert "NaN" in refused(path)


def test_a_file_that_would_run_something_is_refused(tmp_path):
    path = tmp_path / "evil.pth"
    torch.save({"features.0.weight": print}, path)
    assert "nothing was run" in refused(path)


# The file that torchvision stores.


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


def torchvision(monkeypatch, fetch):
    weights = SimpleNamespace(IMAGENET1K_V1=SimpleNamespace(get_state_dict=fetch))
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "torchvision.models", SimpleNamespace(VGG19_Weights=weights))


def test_a_stored_file_needs_no_torchvision(monkeypatch, hub, half):
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    torch.save(half, hub / FILE)
    assert list(load_vgg19()) == list(half)


def test_without_a_stored_file_torchvision_fetches_it_checked_and_without_running_it(monkeypatch, hub, half):
    asked = {}

    def fetch(**options):
        asked.update(options)
        return half | {"classifier.0.weight": torch.zeros(4, 4)}

    torchvision(monkeypatch, fetch)
    assert list(load_vgg19()) == list(half)
    assert asked == {"progress": False, "check_hash": True, "weights_only": True}


def unreachable(**options):
    raise URLError("no route to host")


@pytest.mark.parametrize("installed", [True, False])
def test_weights_out_of_reach_are_told_with_the_way_to_get_them(monkeypatch, hub, installed):
    if installed:
        torchvision(monkeypatch, unreachable)
    else:
        monkeypatch.setitem(sys.modules, "torchvision", None)
        monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(FileNotFoundError) as caught:
        load_vgg19()
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert all(part in message for part in (FILE, "VGG19_Weights.IMAGENET1K_V1", "loss.perceptual.weights"))
    assert ("no route to host" if installed else "torchvision") in message


def test_the_file_is_named_as_torchvision_names_it():
    models = pytest.importorskip("torchvision.models", reason="torchvision is the oracle here")
    assert Path(models.VGG19_Weights.IMAGENET1K_V1.url).name == FILE
