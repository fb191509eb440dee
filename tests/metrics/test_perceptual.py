"""LPIPS and DISTS: what reaches the network, and what is said without it."""

import sys

import numpy as np
import pytest
import torch

from swinir.metrics.perceptual import DISTANCES, distance, load_distance

CPU = torch.device("cpu")
IMAGE = np.random.default_rng(0).integers(0, 256, (70, 80, 3), dtype=np.uint8)


def needs_torchmetrics():
    for module in ("torchmetrics", "torchvision"):
        pytest.importorskip(module, reason=f"{module} comes with the extra `perceptual`")


def test_the_network_sees_rgb_in_units_of_1_without_the_border():
    seen = []

    def network(restored, gt):
        seen.append((restored, gt))
        return (restored - gt).abs().max()

    other = IMAGE.copy()
    other[:2] = 0
    assert distance(network, other, IMAGE, CPU, crop_border=2) == 0
    expected = torch.from_numpy(IMAGE[2:-2, 2:-2].astype(np.float32) / 255).permute(2, 0, 1)[None]
    assert torch.equal(seen[0][0], expected)
    assert distance(network, other, IMAGE, CPU) > 0


def test_grey_images_are_shown_as_colour():
    shapes = []
    distance(lambda a, b: shapes.append((a.shape, b.shape)) or torch.tensor(0.0), IMAGE[..., :1], IMAGE[..., :1], CPU)
    assert shapes == [((1, 3, 70, 80),) * 2]


def test_images_too_small_or_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match="needs 64x64 pixels, got 76x62"):
        distance(None, IMAGE[:66], IMAGE[:66], CPU, crop_border=2)
    with pytest.raises(ValueError, match="images must be of one size"):
        distance(None, IMAGE[:66], IMAGE, CPU)


@pytest.mark.parametrize("name", DISTANCES)
def test_without_torchmetrics_the_extra_is_named(name, monkeypatch):
    for module in [*(m for m in sys.modules if m.startswith("torchmetrics")), "torchmetrics"]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"pip install 'swinir-toolkit\[perceptual\]'"):
        load_distance(name)


@pytest.mark.parametrize("name", DISTANCES)
def test_without_weights_one_line_says_how_to_get_them(name, monkeypatch, tmp_path):
    needs_torchmetrics()

    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(FileNotFoundError) as caught:
        load_distance(name)
    text = str(caught.value)
    entry = DISTANCES[name]
    for part in (entry.title, entry.file, entry.weights, "no network", str(tmp_path / "hub" / "checkpoints")):
        assert part in text
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize("name", DISTANCES)
def test_the_file_named_is_the_one_torchvision_fetches(name):
    needs_torchmetrics()
    import torchvision

    kind, _, version = DISTANCES[name].weights.partition(".")
    assert getattr(torchvision.models, kind)[version].url.endswith(f"/{DISTANCES[name].file}")


@pytest.mark.parametrize("name", DISTANCES)
def test_by_torchmetrics_with_any_weights_equals_are_0_apart_and_noise_widens(name, monkeypatch):
    needs_torchmetrics()
    import torchvision

    kind = {"lpips": torchvision.models.alexnet, "dists": torchvision.models.vgg16}[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        with torch.device("meta"):
            shapes = kind().state_dict()
        # The classifiers, most of the weights, are not part of it.
        state = {
            n: torch.randn(t.shape) * 0.1 if "features" in n else torch.zeros(1).expand(t.shape)
            for n, t in shapes.items()
        }
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: state)
    network = load_distance(name)
    noise = np.random.default_rng(1).normal(0, 1, IMAGE.shape)
    spoiled = [(IMAGE + strength * noise).clip(0, 255).round().astype(np.uint8) for strength in (8, 40)]
    found = [distance(network, image, IMAGE, CPU) for image in (IMAGE, *spoiled, IMAGE)]
    assert found[0] == pytest.approx(0, abs=1e-5)
    assert found[0] == found[3]  # nothing is kept from image to image
    assert found[1] > 1e-4
    assert found[2] > found[1]
