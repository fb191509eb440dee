"""The rate of matrix products on this machine, for comparison with a network's."""

import time
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# (rows, inputs, outputs) of products that are large enough for a device's full rate.
PRODUCTS = {"cpu": ((2048, 512, 512), (4096, 1024, 1024), (16384, 256, 512))}
PRODUCTS_DEFAULT = ((8192, 8192, 8192), (65536, 1024, 1024))


@torch.inference_mode()
def matrix_gflops(device: torch.device, precisions: Iterable[str], repeats: int = 7) -> dict[str, float]:
    """Measure the highest rate among a few large linear layers, in 1e9 operations a second, for each precision."""
    return {
        name: max(_rate(device, DTYPES[name], shape, repeats) for shape in PRODUCTS.get(device.type, PRODUCTS_DEFAULT))
        for name in dict.fromkeys(precisions)
    }


def _rate(device: torch.device, dtype: torch.dtype, shape: tuple[int, int, int], repeats: int) -> float:
    rows, inputs, outputs = shape
    x = torch.randn(rows, inputs, device=device).to(dtype)
    weight = torch.randn(outputs, inputs, device=device).to(dtype)
    return 2e-9 * rows * inputs * outputs / least_seconds(lambda: F.linear(x, weight), device, repeats)


def least_seconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Measure the shortest of some runs of `work`, after one to warm up."""
    seconds = []
    for _ in range(1 + repeats):
        settle(device)
        start = time.perf_counter()
        work()
        settle(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def settle(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
