"""The network and the image that are measured."""

from dataclasses import dataclass
from pathlib import Path

import skimage
import torch
from torch import Tensor

from swinir.image_io.image import read
from swinir.inference.restore import align_tile
from swinir.inference.tiling import align_overlap, mirrored
from swinir.models.any_scale import at_scale, config_at
from swinir.models.complexity import count_macs
from swinir.models.phases import enlarged
from swinir.models.swinir import NetworkConfig, SwinIR
from swinir.tasks import get_task
from swinir.weights import zoo
from swinir.weights.checkpoint import build_model, find_checkpoint, read_checkpoint

PHOTOGRAPH = "astronaut.png"  # comes with scikit-image; NASA, public domain
SEED = 0


@dataclass(frozen=True)
class Subject:
    """The network that is measured.

    Attributes:
        name: as the user gave it.
        network: its configuration.
        file: its weights; None draws them at random, see `live_weights`.
    """

    name: str
    network: NetworkConfig
    file: Path | None = None

    def build(self, device: torch.device) -> SwinIR:
        """Build the network with its weights, in eval mode."""
        if self.file is not None:
            return at_scale(build_model(read_checkpoint(self.name), device), self.network.upscale)
        return SwinIR.from_state(self.network, live_weights(self.network)).requires_grad_(False).eval().to(device)


def find_subject(name: str, scale: float | None = None) -> Subject:
    """Find the network of a weights file or of a name in the zoo; released ones need not have been downloaded.

    Args:
        scale: that a network of any scale is measured at; its largest one by default.

    Raises:
        CheckpointError: (a ValueError) if it is neither, or cannot be read.
        ValueError: for another scale than that of a network of one scale.
    """
    file: Path | None
    try:
        file = find_checkpoint(name)
        network = read_checkpoint(name).network
    except FileNotFoundError:  # a name of the zoo
        parts = zoo.find(name).parts
        level = parts.level if parts.kind == "x" else 1
        network, file = get_task(parts.task).network_for(level, img_size=parts.patch, large=parts.size == "L"), None
    return Subject(name, config_at(network, network.upscale if scale is None else scale), file)


def live_weights(network: NetworkConfig, seed: int = SEED) -> dict[str, Tensor]:
    """Draw random weights that keep activations of order one through all layers, and attention far from uniform.

    Initial weights are too small: the output hardly depends on most of the network.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = {name: parameter.shape for name, parameter in SwinIR(network).named_parameters()}
    weights = {}
    for name, shape in shapes.items():
        normal = torch.randn(shape, generator=generator)
        if name.endswith("relative_position_bias_table"):
            weights[name] = normal / 2
        elif len(shape) == 1:  # around the initial values of norms and other layers
            weights[name] = float("norm" in name and name.endswith("weight")) + normal / 20
        else:
            weights[name] = normal / shape[1:].numel() ** 0.5
    weights["conv_first.weight"] /= network.img_range
    last = "conv_last.weight" if "conv_last.weight" in weights else "upsample.0.weight"
    weights[last] *= 0.2 * network.img_range  # few output values are clamped
    return weights


@dataclass(frozen=True)
class Case:
    """The input: `batch` images of height x width low-quality pixels, whole or in tiles."""

    height: int
    width: int
    batch: int = 1
    tile: int | None = None
    tile_overlap: int = 32

    def check(self, network: NetworkConfig) -> None:
        """Raise a ValueError for tiles that the network cannot have."""
        if self.tile is not None:
            align_overlap(self.tile_overlap, align_tile(self.tile, network.window), network.window)

    def picture(self, network: NetworkConfig) -> Tensor:
        """Load a photograph, cut or mirrored to size: (B, C, H, W) in [0, 1]."""
        pixels = torch.tensor(read(Path(skimage.__file__).parent / "data" / PHOTOGRAPH))
        image = pixels.permute(2, 0, 1)[None, :, : self.height, : self.width].float() / 255
        if network.in_chans != 3:
            image = image.mean(1, keepdim=True).expand(-1, network.in_chans, -1, -1)
        return mirrored(image, slice(0, self.height), slice(0, self.width)).repeat(self.batch, 1, 1, 1)

    def megapixels(self, network: NetworkConfig) -> float:
        """Count the pixels of the output, in millions."""
        return self.batch * enlarged(self.height, network.upscale) * enlarged(self.width, network.upscale) / 1e6

    def gflop(self, network: NetworkConfig) -> float:
        """Count two operations for each multiply-accumulate of the images, in 1e9.

        Padding and overlaps of tiles are not counted, so they lower the rate.
        """
        return 2e-9 * self.batch * count_macs(network, self.height, self.width)
