"""What numbers depend on: the machine, and what it can do at best."""

import os
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from swinir.evaluation.evaluate import environment

CPU = Path("/proc/cpuinfo")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# (rows, inputs, outputs) of products large enough to show what a device can do.
PRODUCTS = {"cpu": ((2048, 512, 512), (4096, 1024, 1024), (16384, 256, 512))}
PRODUCTS_DEFAULT = ((8192, 8192, 8192), (65536, 1024, 1024))


def machine(device: torch.device) -> dict[str, Any]:
    """Versions, device, processor, cores, threads, and how busy the machine is, where the system tells."""
    model = re.search(r"model name\s*: (.*)", CPU.read_text()) if CPU.exists() else None
    return {
        **environment(device),
        "cpu": model[1] if model else "unknown CPU",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


@torch.inference_mode()
def matrix_gflops(device: torch.device, precisions: Iterable[str], repeats: int = 7) -> dict[str, float]:
    """The highest rate of linear layers among a few large ones, in 1e9 operations a second, for each precision."""
    return {
        name: max(_rate(device, DTYPES[name], shape, repeats) for shape in PRODUCTS.get(device.type, PRODUCTS_DEFAULT))
        for name in dict.fromkeys(precisions)
    }


def _rate(device: torch.device, dtype: torch.dtype, shape: tuple[int, int, int], repeats: int) -> float:
    rows, inputs, outputs = shape
    x = torch.randn(rows, inputs, device=device).to(dtype)
    weight = torch.randn(outputs, inputs, device=device).to(dtype)
    seconds = []
    for _ in range(1 + repeats):  # the first warms up
        settle(device)
        start = time.perf_counter()
        F.linear(x, weight)
        settle(device)
        seconds.append(time.perf_counter() - start)
    return 2e-9 * rows * inputs * outputs / min(seconds[1:])


def settle(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
