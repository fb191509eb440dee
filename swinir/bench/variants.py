"""The ways to run a network that `swinir bench` compares, as a table.

All of them run by `restore`, with the same padding and tiles. A new way is a new row.
"""

import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from swinir.inference.export import exported
from swinir.inference.forward import Runnable
from swinir.models.fused import fused_problem
from swinir.models.optimized import LayerForm, OptimizedSwinIR
from swinir.models.rcan import BaselineConfig, ExternalNetwork
from swinir.models.reference import ReferenceSwinIR
from swinir.models.swinir import NetworkConfig, SwinIR
from swinir.weights.checkpoint import write_checkpoint


class FunctionNetwork(ExternalNetwork):
    """Any function of an image as a network that `restore` takes, with the windows of `model`."""

    def __init__(self, name: str, model: SwinIR, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.config = BaselineConfig(name, model.config.in_chans, int(model.config.upscale), window=model.config.window)
        weight = model.conv_first.weight
        self.like = nn.Parameter(weight.new_empty(0), requires_grad=False)  # tells `restore` its device and dtype
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class CachedReference(ReferenceSwinIR):
    """The network as in the paper, with masks and position biases computed once."""

    def __init__(self, config: NetworkConfig, state: Mapping[str, Tensor]) -> None:
        super().__init__(config, state)
        self._known: dict[Any, Tensor] = {}

    def mask(self, x: Tensor, shift: int) -> Tensor:
        key = x.shape[1:3], shift
        if key not in self._known:
            self._known[key] = super().mask(x, shift)
        return self._known[key]

    def position_bias(self, name: str, heads: int) -> Tensor:
        if name not in self._known:
            self._known[name] = super().position_bias(name, heads)
        return self._known[name]


@dataclass(frozen=True)
class Variant:
    """A way to run a network.

    Attributes:
        name: its name on the command line.
        precision: of its matrix products and convolutions, as `restore` takes it.
        about: a description in half a line.
        build: converts a network in eval mode into one that `restore` runs; may raise any exception.
        compiles: run by torch.compile, whose first run at a size compiles for it; memory is that of a later run.
    """

    name: str
    precision: str
    about: str
    build: Callable[[SwinIR], Runnable]
    compiles: bool = False


def _as_it_is(model: SwinIR) -> Runnable:
    return model


def _optimized(model: SwinIR, precision: str, layers: LayerForm, *, graphs: bool = False) -> Runnable:
    problem = fused_problem(model.config, model.conv_first.weight.device) if layers == "fused" else None
    if problem:
        raise ValueError(problem)
    return OptimizedSwinIR(model, precision, layers=layers, graphs=graphs)


def _plain(name: str, kind: type[ReferenceSwinIR], model: SwinIR) -> Runnable:
    if model.config.any_scale:
        raise ValueError("the paper's network has whole scales only")
    return FunctionNetwork(name, model, kind(model.config, model.state_dict()))


def _to_compile(model: SwinIR) -> Runnable:
    torch.compiler.reset()  # PyTorch keeps a limited number of compilations, those for other sizes among them
    return model


def _spandrel(model: SwinIR) -> Runnable:
    """Load spandrel's SwinIR from a file that this package writes."""
    try:
        from spandrel import ModelLoader
    except ImportError as error:
        raise ImportError(
            "spandrel is not installed; install it with: pip install 'swinir-toolkit[baselines]'"
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pth"
        write_checkpoint(path, model.state_dict(), model.config)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's, about a call in spandrel
            loaded = ModelLoader(device=model.conv_first.weight.device).load_from_file(path)
    return FunctionNetwork("spandrel", model, loaded.model.eval().requires_grad_(False))


def _exported(engine: str, precision: str, model: SwinIR) -> Runnable:
    if model.conv_first.weight.is_cuda:
        raise ValueError(f"{engine} runs on the CPU here; add --device cpu")
    return exported(model, engine, precision)


_ROWS = (
    Variant("plain", "fp32", "the network written as in the paper", partial(_plain, "plain", ReferenceSwinIR)),
    Variant("fp32", "fp32", "this package", _as_it_is),
    Variant("bf16", "bf16", "this package, operands of 16 bits", _as_it_is),
    Variant("fp32-eager", "fp32", "PyTorch's operators", partial(_optimized, precision="fp32", layers="eager")),
    Variant(
        "bf16-eager", "bf16", "the same with operands of 16 bits", partial(_optimized, precision="bf16", layers="eager")
    ),
    Variant(
        "bf16-graph",
        "bf16",
        "the same as CUDA graphs",
        partial(_optimized, precision="bf16", layers="eager", graphs=True),
    ),
    Variant(
        "fp32-fused",
        "fp32",
        "Triton's kernel without CUDA graphs",
        partial(_optimized, precision="fp32", layers="fused"),
    ),
    Variant(
        "bf16-fused", "bf16", "the same with operands of 16 bits", partial(_optimized, precision="bf16", layers="fused")
    ),
    Variant("fp32-compiled", "fp32", "this package, by torch.compile", _to_compile, compiles=True),
    Variant("bf16-compiled", "bf16", "the same with operands of 16 bits", _to_compile, compiles=True),
    Variant("onnx", "fp32", "exported, run by onnxruntime", partial(_exported, "onnx", "fp32")),
    Variant("openvino", "fp32", "exported, run by OpenVINO", partial(_exported, "openvino", "fp32")),
    Variant("openvino-bf16", "bf16", "the same in 16 bits", partial(_exported, "openvino", "bf16")),
    Variant(
        "plain-cached",
        "fp32",
        "plain with masks and position biases computed once",
        partial(_plain, "plain-cached", CachedReference),
    ),
    Variant("spandrel", "fp32", "spandrel's network, which other tools run", _spandrel),
)
VARIANTS: dict[str, Variant] = {row.name: row for row in _ROWS}


def get_variants(names: Sequence[str]) -> list[Variant]:
    """Look up variants by name, in this order.

    Raises:
        ValueError: for an unknown name, a repeated one, or none at all.
    """
    for i, name in enumerate(names):
        if name not in VARIANTS:
            raise ValueError(f"unknown variant {name!r}; choose from {', '.join(VARIANTS)}")
        if name in names[:i]:
            raise ValueError(f"variant {name!r} is named twice; name each once")
    if not names:
        raise ValueError(f"no variant to measure; choose from {', '.join(VARIANTS)}")
    return [VARIANTS[name] for name in names]
