"""LPIPS and DISTS, perceptual distances between images, by torchmetrics.

torchmetrics has the layers learned from human judgements; torchvision downloads the backbones once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from swinir.image_io.image import to_rgb
from swinir.weights.safe_load import reason

MIN_SIDE = 64  # below, the deepest features have no pixel left


Network = Callable[[Tensor, Tensor], Tensor]


def _lpips() -> Network:
    module = import_module("torchmetrics.image.lpip")
    metric = module.LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True).eval()

    def network(restored: Tensor, gt: Tensor) -> Tensor:
        value: Tensor = metric.to(gt.device)(restored, gt)
        metric.reset()  # it would keep a mean of all images
        return value

    return network


def _dists() -> Network:
    # The network itself: torchmetrics' metric builds it anew for every image.
    metric = import_module("torchmetrics.functional.image.dists").DISTSNetwork().eval()

    def network(restored: Tensor, gt: Tensor) -> Tensor:
        value: Tensor = metric.to(gt.device)(restored, gt)
        return value

    return network


@dataclass(frozen=True)
class Distance:
    """One perceptual metric.

    Attributes:
        title: for messages and tables.
        build: returns the metric; ImportError without its packages, OSError or RuntimeError without its weights.
        weights: torchvision's name of the backbone's weights.
        file: name of the downloaded file.
    """

    title: str
    build: Callable[[], Network]
    weights: str
    file: str


# LPIPS with AlexNet, as restoration papers report it.
DISTANCES = {
    "lpips": Distance("LPIPS", _lpips, "AlexNet_Weights.IMAGENET1K_V1", "alexnet-owt-7be5be79.pth"),
    "dists": Distance("DISTS", _dists, "VGG16_Weights.IMAGENET1K_V1", "vgg16-397923af.pth"),
}


def load_distance(name: str) -> Network:
    """Return the metric of that name in `DISTANCES`: a function of two (1, 3, H, W) images in [0, 1] on any device.

    Raises:
        ImportError: without torchmetrics or torchvision, naming the extra that brings them.
        FileNotFoundError: when the weights are not there and cannot be downloaded, with the file and where it belongs.
    """
    distance = DISTANCES[name]
    try:
        return distance.build()
    except ImportError as error:
        raise ImportError(
            f"{distance.title} needs torchmetrics and torchvision; install them with: "
            "pip install 'swinir-toolkit[perceptual]'"
        ) from error
    except (OSError, RuntimeError) as error:  # no network, a broken download
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise FileNotFoundError(
            f"{distance.title} needs the weights {distance.file}, and torchvision cannot fetch them here "
            f"({reason(error)}); on a machine with a network run torchvision.models.{distance.weights}"
            f".get_state_dict(), and copy the file from torch.hub.get_dir() + '/checkpoints' there to {folder} here"
        ) from error


@torch.inference_mode()
def distance(
    network: Network, restored: np.ndarray, gt: np.ndarray, device: torch.device, *, crop_border: int = 0
) -> float:
    """Return a metric of two (H, W, 1 or 3) uint8 images; grey ones are repeated to three channels.

    Raises:
        ValueError: for images of different shape, or with a side below 64 inside the border.
    """
    if restored.shape != gt.shape:
        raise ValueError(f"images must be of one size, got {restored.shape} and {gt.shape}")
    inside = slice(crop_border, -crop_border or None)
    pair = [to_rgb(image[inside, inside]) for image in (restored, gt)]
    height, width = pair[0].shape[:2]
    if min(height, width) < MIN_SIDE:
        raise ValueError(f"a perceptual metric needs {MIN_SIDE}x{MIN_SIDE} pixels, got {width}x{height}")
    tensors = [torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].to(device) for image in pair]
    return float(network(*(tensor.float() / 255 for tensor in tensors)))
