"""Run fused layers in Triton's interpreter, in a process of its own, since the interpreter is chosen on import.

    errors([Case(dim=60, heads=6), "golden.npz"])

The interpreter's bfloat16 products are wrong without a word, so float32 and float16 stand for it here.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from golden_state import state
from networks import live

from swinir.models.fused import FusedLayer, Launch
from swinir.models.swinir import RSTB, NetworkConfig, SwinIR
from swinir.models.windows import layer_windows, to_image, to_windows


@dataclass(frozen=True)
class Case:
    """One layer of a network on an image of `rows` x `cols` windows; `launch` has what differs from the default."""

    dim: int
    heads: int
    window: int = 8
    mlp_ratio: float = 2.0
    qkv_bias: bool = True
    rows: int = 2
    cols: int = 2
    batch: int = 1
    shifted: bool = True
    narrow: str = "float32"
    launch: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """Window `first` of images of `rows` x `cols` windows, shifted."""

    rows: int
    cols: int
    first: int


def errors(jobs):
    """Error of each job.

    A `Case`: relative to the layer in float64. The path of a golden file: largest difference from its outputs, all
    layers fused. A `Place`: number of tokens whose row is not that of exact arithmetic.
    """
    root = Path(__file__).parents[1]
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}
    words = [sys.executable, __file__, repr(jobs)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def make_layer(case):
    """The case's layer, with weights large enough for errors in any of them to show."""
    config = NetworkConfig(
        embed_dim=case.dim,
        num_heads=(case.heads,),
        depths=(2,),
        window_size=case.window,
        img_size=4 * case.window,
        mlp_ratio=case.mlp_ratio,
        qkv_bias=case.qkv_bias,
    )
    layer = live(config).layers[0].residual_group.blocks[int(case.shifted)]
    for name, weight in layer.named_parameters():
        if name.endswith(".bias"):
            weight.mul_(20)
    layer.attn.qkv.weight.mul_(1.5)
    return layer


def layer_error(case, device="cpu"):
    """Relative error of the fused layer against the plain one in float64 on the CPU."""
    layer, narrow = make_layer(case), getattr(torch, case.narrow)
    size = (case.rows * case.window, case.cols * case.window)
    image = torch.randn(case.batch, case.dim, *size, generator=torch.Generator().manual_seed(0)) * 2 + 1
    fused = FusedLayer(layer.to(device), narrow)
    fused = FusedLayer(layer, narrow, replace(fused.launch, **case.launch)) if case.launch else fused
    stream = image.permute(0, 2, 3, 1).contiguous().to(device)
    fused.run(stream)
    windows = layer_windows(*size, case.window, torch.device("cpu"), shifted=True)[int(case.shifted)]
    expected = layer.to("cpu", torch.float64)(to_windows(image.double(), case.window), windows)
    expected = to_image(expected, case.window, size).permute(0, 2, 3, 1)
    return ((stream.cpu() - expected).norm() / expected.norm()).item()


def golden_config(file):
    """Configuration of the network of a golden file."""
    return NetworkConfig.from_dict(json.loads(str(np.load(file)["config"])))


def _golden_error(file):
    data, config = np.load(file), golden_config(file)
    weights = state(json.loads(str(data["shapes"])), seed=1, img_range=config.img_range)
    network = SwinIR(config).eval().requires_grad_(False)
    network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()}, strict=False)
    for block in network.layers:
        _fuse(block)
    differences = []
    # A layer sees images of whole windows: those of "input_aligned" are among the others.
    for name in (name for name in data.files if name.startswith("input_") and name != "input_aligned"):
        restored = network(torch.from_numpy(data[name]).float())
        expected = torch.from_numpy(data[name.replace("input_", "output_")])
        differences.append((restored - expected).abs().max().item())
    return max(differences)


def _fuse(block: RSTB):
    # Eight windows a program: the interpreter's time depends on the number of programs.
    layers = [FusedLayer(layer, torch.float32, Launch(4, windows=8)) for layer in block.residual_group.blocks]

    def forward(x, plain, shifted):
        stream = x.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format)
        for layer in layers:
            layer.run(stream)
        return block.close(stream.permute(0, 3, 1, 2), x)

    block.forward = forward


def _row_differences(place, window=8, shift=4):
    rows, cols, first = place.rows, place.cols, place.first
    from stream_rows import write_rows

    found = torch.zeros(64, dtype=torch.int64)
    write_rows[(1,)](found, first, rows, cols, shift, window=window)
    image, index = divmod(first, rows * cols)
    wy, wx = divmod(index, cols)
    expected = [
        (image * rows * window + (wy * window + y + shift) % (rows * window)) * cols * window
        + (wx * window + x + shift) % (cols * window)
        for y in range(window)
        for x in range(window)
    ]
    return int((found != torch.tensor(expected)).sum())


def _error(job):
    if isinstance(job, Case):
        return layer_error(job)
    return _row_differences(job) if isinstance(job, Place) else _golden_error(job)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.stdout.write(json.dumps([_error(job) for job in eval(sys.argv[1])]))
