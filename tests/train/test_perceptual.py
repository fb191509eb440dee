"""Perceptual loss: VGG19 by hand with random weights, and files that do or do not hold it."""

from urllib.error import URLError

import pytest
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import save_file

from swinir.train.config import PerceptualConfig
from swinir.train.perceptual import FILE, PerceptualLoss, load_vgg19, vgg19_features
from swinir.weights.safe_load import CheckpointError

# Configuration E of the paper, as layers: output channels of a convolution, "R" a ReLU, "P" a pooling.
STACK = [
    *[64, "R", 64, "R", "P"],
    *[128, "R", 128, "R", "P"],
    *[256, "R", 256, "R", 256, "R", 256, "R", "P"],
    *[512, "R", 512, "R", 512, "R", 512, "R", "P"],
    *[512, "R", 512, "R", 512, "R", 512, "R", "P"],
]
LAYERS = dict(zip(PerceptualConfig().layers, PerceptualConfig().layer_weights, strict=True))


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
    features = {}
    for index, layer in enumerate(STACK[: max(taps) + 1]):
        if layer == "R":
            x = x.clamp(min=0)
        elif layer == "P":
            x = F.max_pool2d(x, 2)
        else:
            x = F.conv2d(x, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1)
        if index in taps:
            features[index] = x
    return features


@pytest.fixture(scope="module")
def state():
    return random_state()


@pytest.fixture(scope="module")
def loss(state):
    return PerceptualLoss(state, LAYERS)


def images(seed, size=(16, 24)):
    return torch.rand((2, 3, *size), generator=torch.Generator().manual_seed(seed))


# The loss.


def test_the_stack_has_the_published_layers_and_takes_neither_memory_nor_random_numbers():
    before = torch.get_rng_state()
    stack = vgg19_features()
    assert torch.equal(before, torch.get_rng_state())
    kinds = {"Conv2d": lambda layer: layer.out_channels, "ReLU": lambda layer: "R", "MaxPool2d": lambda layer: "P"}
    assert [kinds[type(layer).__name__](layer) for layer in stack] == STACK
    assert {p.device.type for p in stack.parameters()} == {"meta"}


def test_the_published_layers_close_the_stages_and_are_not_rectified():
    assert LAYERS == {2: 0.1, 7: 0.1, 16: 1, 25: 1, 34: 1}
    assert all(isinstance(STACK[layer], int) for layer in LAYERS)
    assert [layer + 2 for layer in LAYERS] == [index for index, layer in enumerate(STACK) if layer == "P"]


@pytest.mark.parametrize("layers", [LAYERS, {4: 2, 1: 3, 0: 5}], ids=["published", "others"])
def test_it_is_the_weighted_distance_of_features_computed_by_hand(state, layers):
    restored, gt = images(1), images(2)
    ours, theirs = (by_hand(state, x, layers) for x in (restored, gt))
    expected = sum(weight * (ours[n] - theirs[n]).abs().mean() for n, weight in layers.items())
    assert expected > 0
    assert PerceptualLoss(state, layers)(restored, gt).item() == pytest.approx(expected.item(), rel=1e-5)


def test_no_layer_beyond_the_deepest_is_kept(state):
    assert list(PerceptualLoss(state, {2: 1}).state_dict()) == [
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
        assert loss(gt, gt) == 0


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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; check loss.perceptual.weights"),
        (
            {"conv_first.weight": torch.zeros(1)},
            f"has no features.0.weight, so it is not VGG19; name torchvision's {FILE}",
        ),
        # VGG16 is alike up to the third convolution of the third stage.
        (random_state(16), "has no features.16.weight"),
        (
            {"features.0.weight": torch.zeros(64, 1, 3, 3)},
            "features.0.weight has shape (64, 1, 3, 3) where VGG19 has (64, 3, 3, 3)",
        ),
        ({"features.0.weight": torch.full((64, 3, 3, 3), float("nan"))}, "NaN"),
        ({"features.0.weight": print}, "nothing was run"),
    ],
    ids=["missing", "other", "vgg16", "shape", "nan", "code"],
)
def test_a_file_that_is_not_vgg19_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "vgg.pth"
    if content is not None:
        torch.save(content, path)
    with pytest.raises(CheckpointError) as caught:
        load_vgg19(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


# The file that torchvision downloads.


@pytest.fixture
def download(monkeypatch, tmp_path):
    """A function that sets the state dict, or the error, that torchvision's download ends with; returns its options."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def set_outcome(outcome):
        asked = {}

        def fetch(url, **options):
            asked.update(options, url=url)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", fetch)
        return asked

    return set_outcome


def test_a_downloaded_file_is_used_and_its_absence_means_a_checked_download_of_tensors(download, half, tmp_path):
    asked = download(half | {"classifier.0.weight": torch.zeros(4, 4)})
    assert list(load_vgg19()) == list(half)
    assert asked.pop("url").endswith(f"/{FILE}")
    assert asked == {"progress": False, "check_hash": True, "weights_only": True}
    (tmp_path / "checkpoints").mkdir()
    torch.save(half, tmp_path / "checkpoints" / FILE)
    download(AssertionError("there is a file"))
    assert list(load_vgg19()) == list(half)


def test_a_failed_download_is_one_line_with_the_way_to_get_the_file(download):
    download(URLError("no route to host"))
    with pytest.raises(FileNotFoundError) as caught:
        load_vgg19()
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    needed = (FILE, "VGG19_Weights.IMAGENET1K_V1", "loss.perceptual.weights", "no route to host")
    assert all(part in message for part in needed)
