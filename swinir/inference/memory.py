"""How much memory a device has left, how much a network needs for an image, and the tile that follows from the two."""

import math
from pathlib import Path

import torch

from swinir.models.rcan import BaselineConfig
from swinir.models.swinir import NetworkConfig

CPU_BUDGET = 2**30  # bytes: tiles beyond that save under 5 % of the time, and leave the machine less for other work
SHARE = {"cuda": 0.8}  # of what is free, that tiles may take
SHARE_DEFAULT = 0.5
UNKNOWN = 2 * 2**30  # bytes taken to be free where the system does not tell
CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
MEMINFO = Path("/proc/meminfo")


def free_memory(device: torch.device) -> int:
    """Bytes that new tensors on a device could take, as far as the system tells."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(min([_available(), *(_left(*map(Path, pair)) for pair in CGROUPS)]))


def _available() -> int:
    try:
        fields = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return UNKNOWN


def _left(limit: Path, used: Path) -> int | float:
    """What a container may still take; pages of files count as used there, so this is the cautious end."""
    try:
        return max(0, int(limit.read_text()) - int(used.read_text()))
    except (OSError, ValueError):  # no such file, or "max"
        return math.inf


def bytes_per_pixel(network: NetworkConfig | BaselineConfig) -> int:
    """About how much `restore` takes for each low-quality pixel of a tile, beside weights and the image itself.

    Counted in float32 tensors that live at one time: in the deep features the shallow ones, the stream, an RSTB's
    image and its convolution with what that reorders; in the reconstruction its widest step.
    """
    subpixels = network.upscale**2
    width = network.embed_dim if isinstance(network, NetworkConfig) else 64
    feat = network.num_feat if isinstance(network, NetworkConfig) else 64
    image = 3 * network.in_chans * subpixels
    upsampler = network.upsampler if isinstance(network, NetworkConfig) else "nearest+conv"
    tail = {
        "pixelshuffle": 2 * feat + 2 * image,
        "nearest+conv": 3 * feat * subpixels + image,
        "pixelshuffledirect": image,
        "": image,
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
    """Side of the largest square tile that the device has memory for; None if the whole image fits.

    Args:
        height, width: of the padded image, in low-quality pixels, multiples of the window.
        overlap: of tiles, in low-quality pixels.
        batch: images that are run together.
    """
    share = SHARE.get(device.type, SHARE_DEFAULT)
    budget = share * free_memory(device)
    if device.type == "cpu":
        budget = min(budget, CPU_BUDGET)
    pixels = budget / (batch * bytes_per_pixel(network))
    if height * width <= pixels:
        return None
    window = network.window
    return max(_smallest(overlap, window), math.isqrt(int(pixels)) // window * window)


def auto_strip_tile(
    network: NetworkConfig | BaselineConfig,
    height: int,
    width: int,
    overlap: int,
    *,
    device: torch.device,
    batch: int = 1,
    strip_bytes: float,
) -> int:
    """Side of the tiles of an image that is restored in strips: as `auto_tile`, and strips fit `strip_bytes`.

    Args:
        height, width, overlap, batch: as `auto_tile` takes them.
        strip_bytes: for what a row of tiles sees, held twice while rows are put together, and for its result.
    """
    window = network.window
    fitting = auto_tile(network, height, width, overlap, device=device, batch=batch) or max(height, width)
    rows = strip_bytes / (4 * batch * network.in_chans * width * (2 + network.upscale**2))
    return max(_smallest(overlap, window), min(fitting, int(rows) // window * window))


def _smallest(overlap: int, window: int) -> int:
    """Side of the smallest tiles: the overlap in whole windows, and a stride of one window."""
    return (-(-overlap // window) + 1) * window
