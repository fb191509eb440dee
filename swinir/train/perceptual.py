"""Perceptual loss of SwinIR's real-world recipe: L1 between VGG19 features of the restored image and of the real one.

The feature stack is VGG19's (Simonyan and Zisserman, ICLR 2015, configuration E) with torchvision's names and
weights; torchvision itself serves only to download them.
"""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from swinir.weights.safe_load import CheckpointError, plain_tensors, read_content, reason, shown, to_float

STAGES = ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4)  # channels of the convolutions between poolings
NUM_LAYERS = sum(2 * len(stage) + 1 for stage in STAGES)
# The last convolution of each stage, before its ReLU, and its weight in the loss (KAIR, options/swinir).
LAYERS = (2, 7, 16, 25, 34)
LAYER_WEIGHTS = (0.1, 0.1, 1.0, 1.0, 1.0)
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB in [0, 1], as VGG19 was trained
IMAGENET_STD = (0.229, 0.224, 0.225)
FILE = "vgg19-dcbb9e9d.pth"  # as torchvision names and stores it, 548 MB; the features are 80 MB of it
PREFIX = "features."


class PerceptualLoss(nn.Module):
    """Weighted sum, over layers of VGG19, of the mean absolute difference of features.

    Weights are frozen: gradients flow through them, to the restored image alone.

    Args:
        state: weights of the feature stack, as `load_vgg19` returns them.
        layers: indices into torchvision's `vgg19().features`, 0 to 36. The features are a layer's own output; those
            of a convolution are not yet rectified, though torchvision's ReLU would overwrite them.
        layer_weights: one for each of `layers`.

    Raises:
        ValueError: for layers that VGG19 has not, repeated ones, or another number of weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        state: Mapping[str, Tensor],
        layers: Sequence[int] = LAYERS,
        layer_weights: Sequence[float] = LAYER_WEIGHTS,
    ) -> None:
        super().__init__()
        _check_layers(layers, layer_weights)
        self.layer_weights = dict(zip(layers, layer_weights, strict=True))
        with torch.device("meta"):  # no memory, no random numbers: the tensors of `state` become the weights
            self.features = vgg19_features(max(layers) + 1)
        needed = self.features.state_dict()
        self.features.load_state_dict({name: state[PREFIX + name] for name in needed}, assign=True)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)

    def forward(self, restored: Tensor, gt: Tensor) -> Tensor:
        """The loss, a scalar; in float32 (or the module's own type) under autocast too.

        Args:
            restored, gt: RGB (B, 3, H, W) in [0, 1], of sides that the deepest layer's poolings leave a pixel of.

        Raises:
            ValueError: for images of different shapes, or not of three channels.
        """
        if restored.shape != gt.shape or restored.shape[-3] != 3:
            raise ValueError(
                f"the perceptual loss compares two batches of RGB images, got {tuple(restored.shape)} "
                f"and {tuple(gt.shape)}"
            )
        with torch.autocast(restored.device.type, enabled=False):
            with torch.no_grad():
                targets = self._features(gt)
            found = self._features(restored)
            terms = [weight * F.l1_loss(found[layer], targets[layer]) for layer, weight in self.layer_weights.items()]
            return torch.stack(terms).sum()

    def _features(self, images: Tensor) -> dict[int, Tensor]:
        """Features of the chosen layers by index."""
        x = (images.to(self.mean.dtype) - self.mean) / self.std
        features = {}
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.layer_weights:
                features[index] = x
        return features


def vgg19_features(depth: int = NUM_LAYERS) -> nn.Sequential:
    """The first `depth` of the 37 layers of VGG19's feature stack, untrained."""
    layers: list[nn.Module] = []
    in_chans = 3
    for stage in STAGES:
        for out_chans in stage:
            # ReLU not in place: features are taken before it.
            layers += [nn.Conv2d(in_chans, out_chans, 3, padding=1), nn.ReLU()]
            in_chans = out_chans
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers[:depth])


def load_vgg19(path: Path | None = None) -> dict[str, Tensor]:
    """Weights of VGG19's feature stack, float32 on the CPU: `features.N.weight` and `features.N.bias`.

    Args:
        path: torchvision's file, or one of the same tensors in PyTorch's or safetensors' format, with or without the
            classifier and with or without "features.". None is the file in the folder of `torch.hub`, downloaded by
            torchvision if it is not there.

    Raises:
        CheckpointError: (a ValueError) for a file that is not there, cannot be read, or holds another network.
        FileNotFoundError: for None, if the file is not there and cannot be downloaded.
    """
    if path is None:
        path = Path(torch.hub.get_dir()) / "checkpoints" / FILE
        if not path.is_file():
            return _features_of(_downloaded())
    try:
        content = read_content(path)
        return _features_of(content.table, content.file_bytes)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file; check loss.perceptual.weights") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}; check the file") from error


def _downloaded() -> Mapping[str, Any]:
    """torchvision's state dict, fetched to the folder of `torch.hub`."""
    try:
        weights = importlib.import_module("torchvision.models").VGG19_Weights.IMAGENET1K_V1
        return weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (ImportError, OSError, RuntimeError) as error:  # no torchvision, no network, a broken download
        raise FileNotFoundError(
            f"the perceptual loss needs VGG19's weights, and torchvision cannot fetch them here ({reason(error)}); on "
            "a machine with a network run torchvision.models.VGG19_Weights.IMAGENET1K_V1.get_state_dict(), copy "
            f"{FILE} from torch.hub.get_dir() + '/checkpoints' there, and set loss.perceptual.weights to its path here"
        ) from error


def _features_of(table: Mapping[Any, Any], file_bytes: int | None = None) -> dict[str, Tensor]:
    """The feature stack's tensors out of a table of weights, each checked."""
    tensors = plain_tensors(table) if file_bytes is None else plain_tensors(table, file_bytes)
    prefix = PREFIX if any(name.startswith(PREFIX) for name in tensors) else ""
    with torch.device("meta"):
        expected = vgg19_features().state_dict()
    state = {}
    for name, needed in expected.items():
        found = tensors.get(prefix + name)
        if found is None:
            raise CheckpointError(f"has no {shown(PREFIX + name)}, so it is not VGG19; name torchvision's {FILE}")
        if found.shape != needed.shape:
            raise CheckpointError(
                f"its tensor {prefix + name} has shape {tuple(found.shape)} where VGG19 has {tuple(needed.shape)}; "
                f"name torchvision's {FILE}"
            )
        state[PREFIX + name] = to_float(prefix + name, found)
    return state


def _check_layers(layers: Sequence[int], layer_weights: Sequence[float]) -> None:
    unknown = [layer for layer in layers if layer not in range(NUM_LAYERS)]
    if unknown:
        raise ValueError(f"VGG19 has no feature layer {unknown[0]}; choose from 0 to {NUM_LAYERS - 1}")
    if not layers or len(set(layers)) != len(layers):
        raise ValueError(f"layers must name at least one layer of VGG19 and none twice, got {list(layers)}")
    if len(layer_weights) != len(layers):
        raise ValueError(f"each layer needs one weight, got {len(layers)} layers and {len(layer_weights)} weights")
