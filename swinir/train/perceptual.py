"""Perceptual loss of SwinIR's real-world recipe: L1 between VGG19 features of the restored and the ground-truth image.

The network is torchvision's. Its weights come from the user's file or from torchvision's download, never by unpickling
anything but tensors.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torchvision.models import VGG19_Weights, vgg19

from swinir.weights.safe_load import CheckpointError, plain_tensors, read_content, reason, shown, to_float

WEIGHTS = VGG19_Weights.IMAGENET1K_V1
FILE = Path(WEIGHTS.url).name  # 548 MB, of which the features are 80 MB
PREFIX = "features."


class PerceptualLoss(nn.Module):
    """Weighted sum over layers of VGG19 of the mean absolute difference between features.

    The weights are frozen. Gradients flow to the restored image only.

    Args:
        state: weights of the feature stack, as `load_vgg19` returns them.
        layers: weight in the loss by index into torchvision's `vgg19().features`. The features are the layer's own
            output: those of a convolution are taken before the ReLU.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, state: Mapping[str, Tensor], layers: Mapping[int, float]) -> None:
        super().__init__()
        self.layers = dict(layers)
        self.features = vgg19_features()[: max(layers) + 1]
        needed = self.features.state_dict()
        self.features.load_state_dict({name: state[PREFIX + name] for name in needed}, assign=True)
        statistics = WEIGHTS.transforms()
        self.register_buffer("mean", torch.tensor(statistics.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(statistics.std).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)

    def forward(self, restored: Tensor, gt: Tensor) -> Tensor:
        """Return the loss, a scalar, computed in float32 (or the module's own type) under autocast too.

        Args:
            restored, gt: RGB (B, 3, H, W) in [0, 1], large enough to leave a pixel after the poolings.

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
            terms = [weight * F.l1_loss(found[layer], targets[layer]) for layer, weight in self.layers.items()]
            return torch.stack(terms).sum()

    def _features(self, images: Tensor) -> dict[int, Tensor]:
        """Features of the chosen layers by index."""
        x = (images.to(self.mean.dtype) - self.mean) / self.std
        features = {}
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.layers:
                features[index] = x
        return features


def vgg19_features() -> nn.Sequential:
    """Return the 37 layers of torchvision's VGG19 feature stack, without memory for weights."""
    with torch.device("meta"):
        features: nn.Sequential = vgg19(init_weights=False).features
    for layer in features:
        if isinstance(layer, nn.ReLU):
            layer.inplace = False  # in place it would overwrite the features of the convolution before it
    return features


def load_vgg19(path: Path | None = None) -> dict[str, Tensor]:
    """Return the weights of VGG19's feature stack, float32 on the CPU: `features.N.weight` and `features.N.bias`.

    Args:
        path: torchvision's file, or one of the same tensors in PyTorch's or safetensors' format, with or without the
            classifier and with or without "features.". None is torchvision's file in the cache of `torch.hub`,
            downloaded if it is not there.

    Raises:
        CheckpointError: (a ValueError) for a file that does not exist, cannot be read, or holds another network.
        FileNotFoundError: for None, if the file does not exist and cannot be downloaded.
    """
    if path is None:
        path = Path(torch.hub.get_dir()) / "checkpoints" / FILE
        if not path.is_file():
            return _features_of(_download())
    try:
        content = read_content(path)
        return _features_of(content.table, content.file_bytes)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file; check loss.perceptual.weights") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}; check the file") from error


def _download() -> Mapping[str, Any]:
    """Download torchvision's state dict into the cache of `torch.hub`."""
    try:
        return WEIGHTS.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:  # no network, or a broken download
        raise FileNotFoundError(
            f"the perceptual loss needs VGG19's weights, and torchvision cannot download them here ({reason(error)}); "
            "on a machine with a network run torchvision.models.VGG19_Weights.IMAGENET1K_V1.get_state_dict(), copy "
            f"{FILE} from torch.hub.get_dir() + '/checkpoints' there, and set loss.perceptual.weights to its path here"
        ) from error


def _features_of(table: Mapping[Any, Any], file_bytes: int | None = None) -> dict[str, Tensor]:
    """Return the feature stack's tensors from a table of weights, each checked."""
    tensors = plain_tensors(table) if file_bytes is None else plain_tensors(table, file_bytes)
    prefix = PREFIX if any(name.startswith(PREFIX) for name in tensors) else ""
    state = {}
    for name, needed in vgg19_features().state_dict().items():
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
