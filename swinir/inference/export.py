"""Export of a network as ONNX, OpenVINO or a PyTorch program, for images of any size.

    SwinIR -> WholeWindows -> torch.export -> .pt2
                          |               \\-> ONNX -> .onnx
                          \\-> OpenVINO -> .xml + .bin

Sizes are symbols: a file maps (1, in_chans, H, W) float32 in [0, 1], H and W multiples of the window, to
(1, in_chans, H*upscale, W*upscale), not clamped. It holds a JSON text under the name "swinir" with the network's
configuration and the source of the weights (ONNX: metadata_props, OpenVINO: rt_info, PyTorch: the extra file
swinir.json). A file is written only after its outputs have been compared with PyTorch's.

`swinir.inference.runtimes` loads .onnx and .xml files as networks. It does not load .pt2 files: `torch.export.load`
unpickles, so an untrusted file could run any code.
"""

import hashlib
import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.fx.experimental._config
import torch.nn as nn
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from swinir.atomic import atomic_path
from swinir.inference.runtimes import METADATA, ExportedNetwork, load_exported, optional
from swinir.models.any_scale import at_scale
from swinir.models.swinir import (
    NetworkConfig,
    SwinIR,
    SwinTransformerLayer,
    WindowAttention,
    layer_norm_2d,
)
from swinir.models.windows import MASKED, relative_position_index
from swinir.version import __version__

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}  # by format
TOLERANCE = 1e-4  # largest allowed difference from PyTorch, of values in [0, 1]
CHECKED_WINDOWS = ((1, 1), (2, 3), (5, 4))  # rows and columns of windows of the images for the check
MAX_WINDOWS = 2**14  # along one side; PyTorch needs a bound on symbolic sizes
OPSET = 20


class Check(NamedTuple):
    """The largest difference between a file's output and PyTorch's on an image of (height, width)."""

    height: int
    width: int
    difference: float


class Written(NamedTuple):
    """The files that `export` wrote, the one to load first."""

    files: tuple[Path, ...]
    bytes: int
    checks: tuple[Check, ...]


def export(
    model: SwinIR,
    path: str | Path,
    format: str,
    *,
    task: str | None = None,
    checkpoint: str | None = None,
    checkpoint_sha256: str | None = None,
    sizes: Sequence[tuple[int, int]] | None = None,
) -> Written:
    """Export a network to `path`; an existing file is replaced only after the check.

    Args:
        model: on any device, of any dtype; the file computes in float32. A network of any scale is exported at its
            present one, which must be whole.
        path: ends in .onnx, .xml or .pt2 as the format says; OpenVINO's weights go into a .bin file beside the .xml.
        format: "onnx", "openvino" or "torch".
        task, checkpoint, checkpoint_sha256: the source of the weights, recorded in the file.
        sizes: (height, width) of the images to check with, multiples of the window; three by default.

    Raises:
        ImportError: without the packages that the format needs, naming the extra.
        ValueError: for an unknown format, a wrong suffix, a network of one size only, and a file that fails the check.
        OSError: if it cannot be written.
    """
    path = Path(path)
    if format not in SUFFIXES:
        raise ValueError(f"unknown format {format!r}; choose one of {', '.join(SUFFIXES)}")
    if path.suffix != SUFFIXES[format]:
        raise ValueError(f"{path}: a file in the format {format} ends in {SUFFIXES[format]}, got {path.suffix!r}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"folder not found: {path.parent}; make it, or write {path.name} elsewhere")
    model = at_scale(model, model.config.upscale)
    if model.config.any_scale:
        raise ValueError(f"a network of any scale is exported at 2, 3 or more, got {model.config.upscale:g}")
    window = model.config.window
    sizes = sizes or [(rows * window, columns * window) for rows, columns in CHECKED_WINDOWS]
    facts = {
        "network": model.config.to_dict(),
        "task": task,
        "checkpoint": checkpoint,
        "checkpoint_sha256": checkpoint_sha256,
        "version": __version__,
        "input": describe_input(model.config),
    }
    # A copy, in float32 on the CPU.
    plain = SwinIR.from_state(model.config, model.state_dict()).eval().requires_grad_(False)
    with tempfile.TemporaryDirectory() as folder:
        made = _make(plain, Path(folder) / f"network{path.suffix}", format, facts)
        checks = tuple(_check(_runner(made[0], format), plain, *size) for size in sizes)
        for check in checks:
            if not check.difference <= TOLERANCE:
                raise ValueError(
                    f"{path}: not written, since on a {check.height}x{check.width} image its output differs from "
                    f"PyTorch's by {check.difference:.1e}, more than {TOLERANCE:.0e}; try another format"
                )
        files = tuple(path.with_suffix(file.suffix) for file in made)
        for source, target in reversed(list(zip(made, files, strict=True))):  # the .xml is the last to appear
            with atomic_path(target) as temporary:
                shutil.copyfile(source, temporary)
    return Written(files, sum(file.stat().st_size for file in files), checks)


def describe_input(config: NetworkConfig) -> str:
    """Describe the input of an exported file."""
    kind = {1: "grey", 3: "RGB"}.get(config.in_chans, "channels")
    return f"(1, {config.in_chans}, H, W) {kind} float32 in [0, 1], H and W multiples of {config.window}"


def exported(model: SwinIR, backend: str, precision: str = "fp32") -> ExportedNetwork:
    """Export, check and load a network to run by "onnx" or "openvino" in place of PyTorch.

    Raises:
        ImportError, ValueError: as `export` and `swinir.inference.runtimes.load_exported`.
    """
    if backend not in ("onnx", "openvino"):
        raise ValueError(f"unknown backend {backend!r}; choose onnx or openvino")
    with tempfile.TemporaryDirectory() as folder:
        return load_exported(export(model, Path(folder) / f"network{SUFFIXES[backend]}", backend).files[0], precision)


class WholeWindows(nn.Module):
    """`SwinIR` on one image of whole windows, in a form that can be traced with symbolic sizes.

    Tokens are (T, C) and reordered by gathers alone. With reshapes of an image to a grid of windows, PyTorch's
    reasoning about symbolic sizes takes minutes and excludes images of a single window.
    """

    index: Tensor

    def __init__(self, model: SwinIR) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("index", relative_position_index(model.config.window), persistent=False)

    def forward(self, lq: Tensor) -> Tensor:
        model, config = self.model, self.model.config
        x = (lq - model.mean) * config.img_range
        shallow = model.conv_first(x)
        deep = model.conv_after_body(self._deep_features(shallow)) + shallow
        return model.reconstruction()(deep, x) / config.img_range + model.mean

    def _deep_features(self, x: Tensor) -> Tensor:
        window = self.model.config.window
        height, width = x.shape[-2:]
        size = (height // window, width // window)
        into, back = window_order(*size, window)
        shift = (*shift_order(*size, window), shift_mask(*size, window)) if self.model.config.shifted else None
        x = self.model.patch_embed(x)
        for rstb in self.model.layers:
            tokens = x[0].flatten(1).T.index_select(0, into)
            for layer in rstb.residual_group.blocks:  # type: ignore[union-attr]
                tokens = self._layer(layer, tokens, shift if layer.masks is not None else None)
            x = rstb.close(tokens.T.index_select(1, back).view(1, -1, height, width), x)  # type: ignore[operator]
        return layer_norm_2d(self.model.norm, x)

    def _layer(self, layer: SwinTransformerLayer, x: Tensor, shift: tuple[Tensor, Tensor, Tensor] | None) -> Tensor:
        order, inverse, mask = shift or (None, None, None)
        if order is not None:
            x = x.index_select(0, order)
        x = x + self._attend(layer.attn, layer.norm1(x), mask)
        x = x + layer.mlp(layer.norm2(x))
        return x if inverse is None else x.index_select(0, inverse)

    def _attend(self, attn: WindowAttention, x: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = rearrange(
            attn.qkv(x), "(n t) (three heads d) -> three n heads t d", three=3, t=len(self.index), heads=attn.num_heads
        )
        bias = rearrange(F.embedding(self.index, attn.relative_position_bias_table), "q k heads -> heads q k")
        logits = (q * attn.scale) @ k.transpose(-2, -1) + bias
        if mask is not None:
            logits = logits + mask
        return attn.proj(rearrange(logits.softmax(-1) @ v, "n heads t d -> (n t) (heads d)"))


def window_order(rows: int, columns: int, window: int) -> tuple[Tensor, Tensor]:
    """Build the gathers from pixels, row by row, to window order and back, for (rows, columns) windows."""
    y, x = torch.arange(rows * window), torch.arange(columns * window)
    into = y.view(-1, 1, window, 1) * (columns * window) + x.view(-1, 1, window)
    y, x = _places(rows, columns, window, 0)
    return into.flatten(), (y[:, None] + x).flatten()


def shift_order(rows: int, columns: int, window: int) -> tuple[Tensor, Tensor]:
    """Build the gathers from window order to that of the grid shifted by half a window, and back."""
    there, back = (_places(rows, columns, window, shift) for shift in (-(window // 2), window // 2))
    order, inverse = (y.view(-1, 1, window, 1) + x.view(-1, 1, window) for y, x in (there, back))
    return order.flatten(), inverse.flatten()


def _places(rows: int, columns: int, window: int, shift: int) -> tuple[Tensor, Tensor]:
    """Compute the terms of each line and each column, rolled by `shift`, in a pixel's index in window order."""
    y, x = torch.roll(torch.arange(rows * window), shift), torch.roll(torch.arange(columns * window), shift)
    return (y // window * (columns * window) + y % window) * window, x // window * window**2 + x % window


def shift_mask(rows: int, columns: int, window: int) -> Tensor:
    """Build the (rows * columns, 1, N, N) additive masks of a shifted layer, those of `class_masks`."""
    wrapped = torch.arange(window) >= window - window // 2
    down, right = wrapped.repeat_interleave(window), wrapped.repeat(window)
    last_row, last_column = torch.arange(rows) == rows - 1, torch.arange(columns) == columns - 1
    across_y = (down[:, None] != down) & last_row[:, None, None]
    across_x = (right[:, None] != right) & last_column[:, None, None]
    return torch.where(across_y[:, None] | across_x, MASKED, 0.0).view(-1, 1, window**2, window**2)


def _make(model: SwinIR, path: Path, format: str, facts: dict[str, Any]) -> tuple[Path, ...]:
    """Write the network without a check; return its files, the one to load first."""
    if model.config.ape:
        raise ValueError(
            "a network with an absolute position embedding takes only images of its training size, "
            f"{model.config.img_size}x{model.config.img_size}; only networks that take any size can be exported"
        )
    if format == "torch":
        torch.export.save(_program(model), path, extra_files={f"{METADATA}.json": json.dumps(facts)})
        return (path,)
    if format == "onnx":
        path.write_bytes(_onnx(model, facts))
        return (path,)
    openvino = optional("openvino", "openvino")
    network = _openvino(openvino, model)
    # The first time for the hash of the weights, which ties the two files together.
    for _ in range(2):
        network.set_rt_info(json.dumps(facts), [METADATA])
        openvino.save_model(network, path, compress_to_fp16=False)
        facts = facts | {"weights_sha256": hashlib.sha256(path.with_suffix(".bin").read_bytes()).hexdigest()}
    return path, path.with_suffix(".bin")


def _program(model: SwinIR) -> torch.export.ExportedProgram:
    """Trace the network as a PyTorch graph, with symbols for the numbers of windows."""
    config = model.config
    rows, columns = (torch.export.Dim(name, min=1, max=MAX_WINDOWS) for name in ("rows", "columns"))
    example = torch.rand(1, config.in_chans, 3 * config.window, 4 * config.window)
    sizes = {2: config.window * rows, 3: config.window * columns}
    # Without this, PyTorch treats sizes of one as a special case, and the program refuses single windows.
    with torch.fx.experimental._config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        return torch.export.export(WholeWindows(model), (example,), dynamic_shapes={"lq": sizes})


def _onnx(model: SwinIR, facts: dict[str, Any]) -> bytes:
    """Convert the network to the content of an ONNX file."""
    onnx, ir = optional("onnx", "onnx"), optional("onnx_ir", "onnx")
    optional("onnxscript", "onnx")
    with _quiet():
        program = torch.onnx.export(
            _program(model),
            dynamo=True,
            opset_version=OPSET,
            input_names=["lq"],
            output_names=["restored"],
            verbose=False,
        )
    assert program is not None
    network, config = program.model, model.config
    network.producer_name, network.producer_version = "swinir-toolkit", __version__
    network.metadata_props[METADATA] = json.dumps(facts)
    sides = ("H", "W") if config.upscale == 1 else (f"{config.upscale}*H", f"{config.upscale}*W")
    network.graph.inputs[0].shape = ir.Shape([1, config.in_chans, "H", "W"])
    network.graph.outputs[0].shape = ir.Shape([1, config.in_chans, *sides])
    content: bytes = ir.to_proto(network).SerializeToString()
    onnx.checker.check_model(content)
    return content


def _openvino(openvino: Any, model: SwinIR) -> Any:
    """Convert the network to OpenVINO's form, in a quarter of the time that the way through ONNX takes."""
    config = model.config
    example = torch.rand(1, config.in_chans, 3 * config.window, 4 * config.window)
    with _quiet():
        network = openvino.convert_model(WholeWindows(model), example_input=example, input=[1, config.in_chans, -1, -1])
    network.inputs[0].set_names({"lq"})
    network.outputs[0].set_names({"restored"})
    return network


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporters' log messages and warnings about their own internals."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _runner(path: Path, format: str) -> Callable[[Tensor], Tensor]:
    if format != "torch":
        return load_exported(path)
    return torch.export.load(path).module()  # our own file, see the module's text


def _check(run: Callable[[Tensor], Tensor], model: SwinIR, height: int, width: int) -> Check:
    """Compare an output of `run` with the network's."""
    lq = torch.rand(1, model.config.in_chans, height, width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return Check(height, width, (run(lq) - model(lq)).abs().max().item())
