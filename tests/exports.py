"""A small network exported to each format, and the packages that the formats need."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from networks import live

from swinir.inference.export import SUFFIXES, Written, export
from swinir.models.swinir import NetworkConfig, SwinIR

TINY = NetworkConfig(upscale=2, upsampler="pixelshuffledirect", embed_dim=12, depths=(2,), num_heads=(3,), img_size=16)
NEEDS = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino",), "torch": ()}


def need(format):
    for module in NEEDS[format]:
        pytest.importorskip(module, reason=f"{module} comes with the extra `{format}`")


class Sample(NamedTuple):
    """A network, its state before it was exported, and the result."""

    network: SwinIR
    before: dict[str, Any]
    written: Written


def write_sample(format: str, folder: Path) -> Sample:
    """Export a small network; the test is skipped without the packages that the format needs."""
    need(format)
    network = live(TINY, torch.float64).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    facts = {"task": "lightweight_sr", "checkpoint": "x2.pth", "checkpoint_sha256": "0f"}
    return Sample(network, before, export(network, folder / f"network{SUFFIXES[format]}", format, **facts))
