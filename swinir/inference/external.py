"""Any network beside SwinIR, as `swinir.restore` takes it: what spandrel loads, exported files, bicubic interpolation.

    "bicubic", weights file, name in the zoo, exported file -> load_external -> Loaded: the network and what it costs

Weights files are untrusted: they are read by `swinir.weights.checkpoint` alone, and spandrel is given the tensors.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from swinir.degradations.resize import imresize
from swinir.inference.forward import Runnable, out_of_memory
from swinir.inference.runtimes import SUFFIXES, ExportedNetwork, load_exported, optional
from swinir.inference.tiling import mirrored
from swinir.models.complexity import count_macs, count_parameters, measure_macs
from swinir.models.rcan import BaselineConfig, ExternalNetwork
from swinir.models.swinir import NetworkConfig, SwinIR
from swinir.tasks import TaskSpec
from swinir.weights.checkpoint import (
    ENTRIES,
    CheckpointError,
    build_model,
    find_checkpoint,
    read_checkpoint,
    read_tensors,
)
from swinir.weights.safe_load import reason
from swinir.weights.verify import sha256

INTERPOLATION = "bicubic"  # the input enlarged, or as it is where the task keeps the size
MACS_SIDE = 256  # operations are those of a low-quality image of this side, as the released program's page states them
# Where other programs keep weights; the first that a file has is taken.
OTHER_ENTRIES = (*ENTRIES, "params-ema", "model_state_dict", "net")


@dataclass(frozen=True)
class Loaded:
    """A network, ready to run, and what a table says of it.

    Attributes:
        model: what `restore` runs.
        architecture: what kind of network it is.
        parameters: number of values that were, or could have been, learned.
        macs: multiply-accumulates for an image of MACS_SIDE x MACS_SIDE, convolutions and matrix products; None where
            they cannot be counted.
        padding: how images are extended for it.
        bf16: whether it can be run at that precision.
        sha256: of its file; "" without one.
    """

    model: Runnable
    architecture: str
    parameters: int
    macs: int | None
    padding: str
    bf16: bool
    sha256: str


class Bicubic:
    """MATLAB's bicubic enlargement of 8 bits on the CPU, as the papers' lowest row; at scale 1 the image as it is."""

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, chans: int, scale: int) -> None:
        self.config = BaselineConfig(INTERPOLATION, chans, scale, extra_window=False)

    def __call__(self, x: Tensor) -> Tensor:
        if self.config.upscale == 1:
            return x.clone()
        images = (x.clamp(0, 1) * 255).round().to("cpu", torch.uint8).permute(0, 2, 3, 1).numpy()
        enlarged = np.stack([imresize(image, self.config.upscale) for image in images])
        return torch.from_numpy(enlarged).permute(0, 3, 1, 2).float() / 255


class SpandrelNetwork(ExternalNetwork):
    """A network that spandrel has loaded, called as spandrel calls it.

    Images of any size: those that are too small, or no squares where the network needs some, are extended by their
    mirror image, and the result is cropped.

    Raises:
        ValueError: when the network cannot run, naming the file.
        MemoryError: when there is not enough.
    """

    def __init__(self, path: Path, descriptor: Any) -> None:
        super().__init__()
        self.path = path
        self.network = descriptor.model.eval().requires_grad_(False)
        self._descriptor = [descriptor]  # in a list, since what it holds is a part of this module already
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
        scale = self.config.upscale
        return restored[..., : height * scale, : width * scale]


def load_external(name: str, task: TaskSpec, scale: int, device: torch.device) -> Loaded:
    """The network of that name, on the device if it can, to be run at a task and scale.

    Args:
        name: "bicubic"; a weights file of SwinIR or of any network that spandrel knows; a name of the zoo; an exported
            .onnx or .xml, which runs on the CPU.

    Raises:
        ValueError, FileNotFoundError: for what is none of these, cannot be read, or restores something else.
        ImportError: for a network that needs a package which is not there, naming the extra.
    """
    if name == INTERPOLATION:
        bicubic = Bicubic(1 if task.gray else 3, scale)
        return Loaded(bicubic, "interpolation" if scale > 1 else "the input", 0, None, "none", False, "")
    path = Path(name) if Path(name).suffix in SUFFIXES else find_checkpoint(name)
    model = load_exported(path) if path.suffix in SUFFIXES else _from_weights(path, task, device)
    check(model.config, task, scale, path.name)
    config, digest = model.config, sha256(path)
    if isinstance(config, NetworkConfig):
        kind = model.engine if isinstance(model, ExportedNetwork) else "SwinIR"
        costs = count_parameters(config), count_macs(config, MACS_SIDE, MACS_SIDE)
        padding = f"to the next multiple of {config.window} above the size"
        return Loaded(model, kind, *costs, padding, isinstance(model, SwinIR), digest)
    assert isinstance(model, SpandrelNetwork)
    descriptor = model._descriptor[0]
    return Loaded(
        model,
        descriptor.architecture.name,
        sum(p.numel() for p in model.parameters()),
        _macs(model),
        _padding(descriptor),
        descriptor.supports_bfloat16,
        digest,
    )


def check(config: NetworkConfig | BaselineConfig, task: TaskSpec, scale: int, source: str) -> None:
    """Refuse a network of another scale or number of channels; a ValueError naming what differs."""
    chans = 1 if task.gray else 3
    if config.upscale != scale:
        raise ValueError(f"{source} enlarges by {config.upscale}, not by {scale}; name one of that scale")
    if config.in_chans != chans:
        raise ValueError(f"{source} takes {config.in_chans} channels, {task.name} has {chans}; name another")


def _from_weights(path: Path, task: TaskSpec, device: torch.device) -> SwinIR | SpandrelNetwork:
    """SwinIR by this package, any other network by spandrel."""
    tensors = read_tensors(path, entries=OTHER_ENTRIES)  # first: it refuses what is no weights file at all
    try:
        return build_model(read_checkpoint(path, key=task.weights_key), device)
    except CheckpointError as error:
        not_swinir = error
    return load_with_spandrel(path, tensors, not_swinir).to(device)


def load_with_spandrel(
    path: Path, tensors: Mapping[str, Tensor], not_swinir: Exception | None = None
) -> SpandrelNetwork:
    """The network whose weights these are, on the CPU.

    Args:
        path: for messages.
        not_swinir: why the file is none of ours, for the message when spandrel does not know it either.

    Raises:
        ValueError: for weights of no network that spandrel knows, or of one that is not from image to image.
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
    except Exception as error:  # what its detectors guess from crafted or damaged weights may fail in any way
        raise ValueError(f"{path}: spandrel cannot load it: {reason(error)}; is the file whole?") from error
    if not isinstance(descriptor, spandrel.ImageModelDescriptor):
        raise ValueError(f"{path}: {descriptor.architecture.name} needs more than an image; it cannot be compared")
    if descriptor.input_channels != descriptor.output_channels:
        seen = f"{descriptor.input_channels} channels in, {descriptor.output_channels} out"
        raise ValueError(f"{path}: {descriptor.architecture.name} has {seen}; it cannot be compared")
    return SpandrelNetwork(path, descriptor)


def _macs(model: SpandrelNetwork) -> int | None:
    try:
        return measure_macs(model, model.config.in_chans, MACS_SIDE, MACS_SIDE)
    except Exception:  # a network that looks at numbers
        return None


def _padding(descriptor: Any) -> str:
    """What spandrel says the network wants of an image's sides."""
    sizes = descriptor.size_requirements
    wants = [f"to multiples of {sizes.multiple_of}"] if sizes.multiple_of > 1 else []
    wants += [f"to {sizes.minimum} pixels at least"] if sizes.minimum > sizes.multiple_of else []
    wants += ["to a square"] if sizes.square else []
    return ", ".join(wants) or "none"
