"""The installation and the machine: folders of the package, the commit of a source tree, versions and hardware."""

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swinir.version import __version__

if TYPE_CHECKING:
    import torch

PACKAGE = Path(__file__).parent
CPU = Path("/proc/cpuinfo")


def source_tree() -> Path | None:
    """Return the folder of the source tree that the package runs from; None for an installed package."""
    return PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else None


def shipped_folder(name: str) -> Path | None:
    """Return a folder that comes with the package, such as "model_zoo/bundled".

    A wheel has it inside the package, a source tree beside it. None where it is missing.
    """
    places = [place / name for place in (PACKAGE, source_tree()) if place]
    return next((place for place in places if place.is_dir()), None)


def commit() -> str | None:
    """Return the commit of the source tree, with "-dirty" when it has changes; None outside of one."""
    root = source_tree()
    if root is None:
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def environment(device: "torch.device") -> dict[str, str]:
    """Return the versions and the device that a measured number depends on."""
    import cv2
    import numpy as np
    import torch

    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return {
        "swinir": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "device": f"{device} {gpu}".strip(),
        "machine": platform.machine(),
    }


def machine(device: "torch.device") -> dict[str, Any]:
    """Return `environment` with processor, cores, threads and load, where the system tells them."""
    import torch

    model = re.search(r"model name\s*: (.*)", CPU.read_text()) if CPU.exists() else None
    return {
        **environment(device),
        "cpu": model[1] if model else "unknown CPU",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }
