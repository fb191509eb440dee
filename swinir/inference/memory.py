"""Tile sizes from free memory: free bytes of a device, bytes that a network needs, the tile that fits."""

import math
from pathlib import Path

import torch

from swinir.models.graphs import drop_recordings, reserved_bytes
from swinir.models.phases import COEFFICIENTS
from swinir.models.rcan import BaselineConfig
from swinir.models.swinir import NetworkConfig

CPU_BUDGET = 2**30  # bytes: larger tiles save less than 5 % of the time, and leave less memory for other programs
SHARE = {"cuda": 0.8}  # of the free memory, for tiles
SHARE_DEFAULT = 0.5
UNKNOWN = 2 * 2**30  # bytes taken to be free where the system does not tell
CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
MEMINFO = Path("/proc/meminfo")


def free_memory(device: torch.device) -> int:
    """Bytes that new tensors on a device can take, as far as the system tells."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device) - reserved_bytes(device)
        return free + max(0, unused)
    return int(min([_available(), *(_left(*map(Path, pair)) for pair in CGROUPS)]))


def release_memory(device: torch.device) -> bool:
    """Give back what a device keeps for speed only; tell whether memory may suffice now that did not before."""
    if device.type != "cuda":
        return False
    dropped = drop_recordings(device)
    with torch.cuda.device(device):
        torch.cuda.empty_cache()
    return dropped


def _available() -> int:
    """Free bytes of the machine."""
    try:
        fields = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return UNKNOWN


def _left(limit: Path, used: Path) -> int | float:
    """Free bytes of a container. Cached file pages count as used there, so this is a cautious estimate."""
    try:
        return max(0, int(limit.read_text()) - int(used.read_text()))
    except (OSError, ValueError):  # no such file, or "max"
        return math.inf


def bytes_per_pixel(network: NetworkConfig | BaselineConfig) -> int:
    """Estimate the bytes `restore` needs for each low-quality pixel of a tile, without weights and the image itself.

    Counted in float32 tensors that live at one time: in the deep features the shallow ones, the residual stream, and
    the image, convolution and reordering of one RSTB; in the reconstruction its widest step.
    """
    subpixels = math.ceil(network.upscale) ** 2
    width = network.embed_dim if isinstance(network, NetworkConfig) else 64
    feat = network.num_feat if isinstance(network, NetworkConfig) else 64
    image = 3 * network.in_chans * subpixels
    upsampler = network.upsampler if isinstance(network, NetworkConfig) else "nearest+conv"
    tail = {
        "pixelshuffle": 2 * feat + 2 * image,
        "nearest+conv": 3 * feat * subpixels + image,
        "pixelshuffledirect": image,
        "": image,
        "any": 3 * network.in_chans * COEFFICIENTS + image,
    }[upsampler]
    return 4 * (2 * width + max(6 * width, tail))


def auto_tile(
    network: NetworkConfig | BaselineConfig,
    height: int,
    width: int,
    overlap: int,
    *,
    device: torch.device,
    batch: int = 1,
) -> int | None:
    """Choose the largest square tile that the device has memory for; None if the whole image fits.

    Args:
        height, width: of the padded image, in low-quality pixels, multiples of the window.
        overlap: of tiles, in low-quality pixels.
        batch: number of images that are run together.
    """
    pixels = _room(network, device, batch)
    if height * width > pixels and release_memory(device):
        pixels = _room(network, device, batch)
    if height * width <= pixels:
        return None
    window = network.window
    smallest = (-(-overlap // window) + 1) * window  # a stride of one window
    return max(smallest, math.isqrt(int(pixels)) // window * window)


def _room(network: NetworkConfig | BaselineConfig, device: torch.device, batch: int) -> float:
    """Estimate the low-quality pixels of each image of a batch that the device has memory for."""
    budget = SHARE.get(device.type, SHARE_DEFAULT) * free_memory(device)
    if device.type == "cpu":
        budget = min(budget, CPU_BUDGET)
    return budget / (batch * bytes_per_pixel(network))
