"""External networks for `swinir.restore`: networks that spandrel loads, exported files, bicubic interpolation.

    "bicubic", weights file, name in the zoo, exported file -> load_external -> Loaded: the network and its cost

Weights files are untrusted: only `swinir.weights.checkpoint` reads them, and spandrel gets the tensors.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from swinir.degradations.resize import imresize
from swinir.inference.forward import Runnable, out_of_memory
from swinir.inference.restore import restore
from swinir.inference.runtimes import SUFFIXES, ExportedNetwork, load_exported, optional
from swinir.inference.tiling import mirrored
from swinir.models.any_scale import at_scale
from swinir.models.complexity import count_macs, count_parameters, measure_macs
from swinir.models.rcan import BaselineConfig, ExternalNetwork
from swinir.models.swinir import NetworkConfig, SwinIR, enlarged_size
from swinir.tasks import TaskSpec
from swinir.weights.checkpoint import (
    ENTRIES,
    CheckpointError,
    SeveralTasksError,
    build_model,
    find_checkpoint,
    read_checkpoint,
    read_tensors,
)
from swinir.weights.safe_load import reason
from swinir.weights.verify import sha256

INTERPOLATION = "bicubic"  # enlarges the input, or returns it where the task keeps the size
MACS_SIDE = 256  # side of the low-quality image that operations are counted for, as on the released program's page
OUTPUT = 720, 1280  # height and width of the output that papers on super-resolution count operations for
# Entries that other programs save weights in; the first one in a file is read.
OTHER_ENTRIES = (*ENTRIES, "params-ema", "model_state_dict", "net")


@dataclass(frozen=True)
class Loaded:
    """A network that is ready to run, and its properties for tables.

    Attributes:
        model: the network, for `restore`.
        architecture: name of its architecture.
        parameters: number of learnable values.
        macs: multiply-accumulates of convolutions and matrix products for a MACS_SIDE x MACS_SIDE image; None if they
            cannot be counted.
        macs_720p: likewise with normalisation and pooling, as fvcore counts them, for an output of 1280x720 pixels;
            None also without a scale.
        padding: description of how images are extended for it.
        bf16: True if it can run at that precision.
        sha256: of its file; "" without one.
    """

    model: Runnable
    architecture: str
    parameters: int
    macs: int | None
    macs_720p: int | None
    padding: str
    bf16: bool
    sha256: str


class Bicubic:
    """MATLAB's bicubic enlargement of 8-bit images on the CPU, the baseline of papers; scale 1 returns the image.

    Args:
        networks: run on the image first, one after another; bicubic then gives their output the size of the scale, as
            `swinir restore` does with models of other scales.
    """

    device = torch.device("cpu")
    dtype = torch.float32
    precision = "fp32"

    def __init__(self, chans: int, scale: float, networks: Sequence[Runnable] = ()) -> None:
        self.networks = networks
        self.config = BaselineConfig(INTERPOLATION, chans, scale, extra_window=False)
        self.exact = self

    def __call__(self, x: Tensor) -> Tensor:
        size = enlarged_size(x, self.config.upscale)
        for network in self.networks:
            x = restore(network, x, check=False)
        if tuple(x.shape[-2:]) == size:
            return x.clone()
        images = x.clamp(0, 1).to("cpu", torch.float32).permute(0, 2, 3, 1).numpy()
        if not self.networks:
            images = (images * 255).round().astype(np.uint8)
        enlarged = torch.from_numpy(np.stack([imresize(image, size=size) for image in images]))
        return enlarged.permute(0, 3, 1, 2).float() / (1 if self.networks else 255)


class SpandrelNetwork(ExternalNetwork):
    """A network loaded and called by spandrel, for images of any size.

    Images that are too small for the network, or not square where it needs squares, are extended by their mirror image,
    and the output is cropped.

    Raises:
        ValueError: if the network cannot run, naming the file.
        MemoryError: for lack of memory.
    """

    def __init__(self, path: Path, descriptor: Any) -> None:
        super().__init__()
        self.path = path
        self.network = descriptor.model.eval().requires_grad_(False)
        self._descriptor = [descriptor]  # in a list, since the network in it is a submodule already
        sizes = descriptor.size_requirements
        self.config = BaselineConfig(
            descriptor.architecture.id,
            descriptor.input_channels,
            descriptor.scale,
            window=sizes.multiple_of,
            extra_window=False,
        )

    def forward(self, x: Tensor) -> Tensor:
        descriptor, (height, width) = self._descriptor[0], x.shape[-2:]
        more_width, more_height = descriptor.size_requirements.get_padding(width, height)
        extended = mirrored(x, slice(0, height + more_height), slice(0, width + more_width))
        try:
            # One at a time, as spandrel promises; a copy, since networks write on their input.
            restored = torch.cat([descriptor(image.clone()) for image in extended.split(1)])
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # of any of its networks
            if out_of_memory(error):
                raise
            raise ValueError(f"{self.path}: {self.config.name} cannot run: {reason(error)}") from error
        scale = int(self.config.upscale)
        return restored[..., : height * scale, : width * scale]


def load_external(name: str, task: TaskSpec, scale: float, device: torch.device) -> Loaded:
    """Load a network for a task and scale, on the device if it can run there.

    Args:
        name: "bicubic"; a weights file of SwinIR or of any network that spandrel knows; a name of the zoo; an exported
            .onnx or .xml, which runs on the CPU.

    Raises:
        ValueError, FileNotFoundError: for other names, unreadable files, and networks of another scale or channels.
        ImportError: for a network whose package is not installed, naming the extra.
    """
    if name == INTERPOLATION:
        bicubic = Bicubic(1 if task.gray else 3, scale)
        return Loaded(bicubic, "interpolation" if scale > 1 else "the input", 0, None, None, "none", False, "")
    path = Path(name) if Path(name).suffix in SUFFIXES else find_checkpoint(name)
    model = load_exported(path) if path.suffix in SUFFIXES else _from_weights(name, path, task, device)
    if isinstance(model, SwinIR) and model.config.any_scale:
        model = at_scale(model, scale)
    check(model.config, task, scale, path.name)
    config, digest = model.config, sha256(path)
    height, width = (int(side // scale) for side in OUTPUT)
    if isinstance(config, NetworkConfig):
        kind = model.engine if isinstance(model, ExportedNetwork) else "SwinIR"
        macs_720p = count_macs(config, height, width, norms=True) if scale > 1 else None
        costs = count_parameters(config), count_macs(config, MACS_SIDE, MACS_SIDE), macs_720p
        padding = f"to the next multiple of {config.window} above the size"
        return Loaded(model, kind, *costs, padding, isinstance(model, SwinIR), digest)
    assert isinstance(model, SpandrelNetwork)
    descriptor = model._descriptor[0]
    return Loaded(
        model,
        descriptor.architecture.name,
        sum(p.numel() for p in model.parameters()),
        _macs(model, MACS_SIDE, MACS_SIDE),
        _macs(model, height, width, norms=True) if scale > 1 else None,
        _padding(descriptor),
        descriptor.supports_bfloat16,
        digest,
    )


def check(config: NetworkConfig | BaselineConfig, task: TaskSpec, scale: float, source: str) -> None:
    """Refuse a network of another scale, or for grey images in a task of color; a ValueError naming what differs."""
    chans = 1 if task.gray else 3
    if config.upscale != scale:
        raise ValueError(f"{source} enlarges by {config.upscale:g}, not by {scale:g}; name one of that scale")
    if config.in_chans not in (chans, 3):
        raise ValueError(f"{source} takes {config.in_chans} channels, {task.name} has {chans}; name another")


def _from_weights(name: str, path: Path, task: TaskSpec, device: torch.device) -> SwinIR | SpandrelNetwork:
    """Load SwinIR by this package, any other network by spandrel."""
    tensors = read_tensors(path, entries=OTHER_ENTRIES)  # first, since it refuses files that hold no weights
    try:
        return build_model(read_checkpoint(name, key=task.weights_key), device)
    except SeveralTasksError:
        raise
    except CheckpointError as error:
        not_swinir = error
    return load_with_spandrel(path, tensors, not_swinir).to(device)


def load_with_spandrel(
    path: Path, tensors: Mapping[str, Tensor], not_swinir: Exception | None = None
) -> SpandrelNetwork:
    """Load the network with these weights on the CPU.

    Args:
        path: for messages.
        not_swinir: the reason that they are not SwinIR's, for the message if spandrel does not know them either.

    Raises:
        ValueError: for weights that spandrel does not know, and networks that do not map images to images.
        ImportError: without spandrel.
    """
    spandrel = optional("spandrel", "baselines")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            descriptor = spandrel.MAIN_REGISTRY.load(dict(tensors))
    except spandrel.UnsupportedModelError as error:
        why = f" ({not_swinir})" if not_swinir else ""
        raise ValueError(f"{path}: weights of no network that spandrel knows, and no SwinIR's{why}") from error
    except Exception as error:  # crafted or damaged weights can make its detectors fail in any way
        raise ValueError(f"{path}: spandrel cannot load it: {reason(error)}; is the file whole?") from error
    if not isinstance(descriptor, spandrel.ImageModelDescriptor):
        raise ValueError(f"{path}: {descriptor.architecture.name} needs more than an image; it cannot be compared")
    if descriptor.input_channels != descriptor.output_channels:
        seen = f"{descriptor.input_channels} channels in, {descriptor.output_channels} out"
        raise ValueError(f"{path}: {descriptor.architecture.name} has {seen}; it cannot be compared")
    return SpandrelNetwork(path, descriptor)


def _macs(model: SpandrelNetwork, height: int, width: int, *, norms: bool = False) -> int | None:
    try:
        return measure_macs(model, model.config.in_chans, height, width, norms=norms)
    except Exception:  # a network whose steps depend on values
        return None


def _padding(descriptor: Any) -> str:
    """Describe the sizes of images that the network needs, as spandrel states them."""
    sizes = descriptor.size_requirements
    wants = [f"to multiples of {sizes.multiple_of}"] if sizes.multiple_of > 1 else []
    wants += [f"to {sizes.minimum} pixels at least"] if sizes.minimum > sizes.multiple_of else []
    wants += ["to a square"] if sizes.square else []
    return ", ".join(wants) or "none"
