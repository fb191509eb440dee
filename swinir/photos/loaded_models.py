"""Models that stay loaded between images, within a budget of memory."""

import math
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from threading import Lock

import torch
from torch import nn

from swinir.inference.forward import Runnable, optimize_for
from swinir.inference.memory import free_memory
from swinir.inference.options import RunOptions
from swinir.inference.runtimes import SUFFIXES, ExportedNetwork, load_exported
from swinir.models.any_scale import at_scale
from swinir.models.complexity import count_parameters
from swinir.models.optimized import OptimizedSwinIR, resolve_precision
from swinir.models.swinir import SwinIR
from swinir.weights import zoo
from swinir.weights.checkpoint import find_checkpoint, load_model, sha256

BUDGET_SHARE = 0.25  # of the memory that is free at first
COPIES = 2.5  # memory of a loaded network in multiples of its weights, with the optimized form
BACKENDS = ("onnx", "openvino")
EXPORTED_BYTES = 100e6  # of an exported network, whose runtime does not tell


class LoadedModels:
    """Networks by name of their checkpoint; the one used longest ago leaves first. Threads may share it.

    A network of any scale is asked for with a scale; without one it has the largest that it was trained for.

    Args:
        device: place of the networks.
        budget: in bytes; None is a share of the memory that is free now.
        load: loads a checkpoint, by path or name in the zoo, onto a device; for networks of any scale, at a scale.
        options: for running the networks; SwinIR is held in the form optimized for them.
    """

    def __init__(
        self,
        device: torch.device,
        budget: float | None = None,
        load: Callable[..., Runnable] | None = None,
        options: RunOptions | None = None,
    ) -> None:
        self.device, self.load, self.options = device, load or load_any, options or RunOptions()
        self.budget = BUDGET_SHARE * free_memory(device) if budget is None else budget
        self._loaded: OrderedDict[tuple[str, float | None], Runnable] = OrderedDict()
        self._largest: dict[str, float] = {}  # scales of networks of any scale
        self._hashes: dict[str, str] = {}
        self._loading = Lock()

    def get(self, name: str, scale: float | None = None) -> Runnable:
        """Return the network of a checkpoint; one of any scale at this one."""
        key = name, scale
        with self._loading:
            if key not in self._loaded:
                network = self.load(name, self.device) if scale is None else self.load(name, self.device, scale)
                if isinstance(network, SwinIR) and network.config.any_scale and scale is None:
                    self._largest[name] = network.config.upscale
                self._loaded[key] = optimize_for(network, self.options)
                while len(self._loaded) > 1 and self.bytes > self.budget:
                    self._loaded.popitem(last=False)
            self._loaded.move_to_end(key)
            return self._loaded[key]

    def largest_scale(self, name: str) -> float | None:
        """Return the largest scale of a network of any scale; None for others."""
        self.get(name)
        return self._largest.get(name)

    @property
    def bytes(self) -> float:
        """Estimated memory of the loaded networks."""
        return sum(map(_bytes, list(self._loaded.values())))

    def scale(self, name: str, scale: float | None = None) -> float:
        """Return the factor by which a model enlarges."""
        return self.get(name, scale).config.upscale

    def engine(self, name: str, scale: float | None = None) -> tuple[str, str]:
        """Return the library that runs a model, with its version, and the precision that it computes in."""
        network = self.get(name, scale)
        if isinstance(network, ExportedNetwork):
            return network.engine, network.precision
        return f"torch {torch.__version__}", resolve_precision(self.options.precision, self.device)

    def sha256(self, name: str) -> str:
        """Return the hash of a checkpoint's file."""
        if name not in self._hashes:
            path = Path(name)
            self._hashes[name] = sha256(path if path.suffix in SUFFIXES else find_checkpoint(name))
        return self._hashes[name]


def load_any(name: str, device: torch.device, scale: float | None = None) -> Runnable:
    """Load a checkpoint by path or name in the zoo, or an exported file, which runs on the CPU."""
    if Path(name).suffix in SUFFIXES:
        return load_exported(name)
    model = load_model(name, device)
    return model if scale is None else at_scale(model, scale)


def load_by(backend: str | None, device: torch.device, precision: str) -> Callable[..., Runnable]:
    """Return a function that loads a model, and converts it for the backend that is named.

    "onnx" and "openvino" run it on the CPU, and networks of any scale at the next whole one, from 2 on.

    Raises:
        ValueError: for another backend, and a device or precision that it does not have.
    """
    if backend is None:
        return load_any
    from swinir.inference.export import exported

    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if device.type != "cpu":
        raise ValueError(f"backend {backend} runs on the CPU, and the device is {device}; choose the device cpu")
    if backend == "onnx" and precision == "bf16":
        raise ValueError("backend onnx computes in fp32, and the precision is bf16; leave one of them out")
    chosen = "fp32" if backend == "onnx" else resolve_precision(precision, device)

    def load(name: str, _: torch.device, scale: float | None = None) -> Runnable:
        model = load_model(name, "cpu")
        return exported(model if scale is None else at_scale(model, max(2, math.ceil(scale))), backend, chosen)

    return load


def short_name(name: str) -> str:
    """Return the name of a checkpoint for a table: its alias in the zoo, or its file name."""
    try:
        return zoo.find(name).alias if not Path(name).exists() else Path(name).name
    except ValueError:
        return Path(name).name


def task_of(name: str) -> str | None:
    """Return the task of a checkpoint, by its name; None for names that do not tell."""
    try:
        return zoo.find(name).parts.task
    except ValueError:
        return None


def _bytes(network: Runnable) -> float:
    """Estimate the memory of a network."""
    if isinstance(network, OptimizedSwinIR):
        return COPIES * count_parameters(network.config) * network.dtype.itemsize
    if isinstance(network, nn.Module):
        return COPIES * sum(p.numel() * p.element_size() for p in network.parameters())
    return EXPORTED_BYTES
