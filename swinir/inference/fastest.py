"""The faster of two forms of a network on this CPU: this package's, or OpenVINO's where it is installed.

    SwinIR -> folder in a cache: network.xml, network.bin, choice.json -> OptimizedSwinIR or ExportedNetwork

The choice is measured once for a network, precision, number of threads, processor and versions, and kept, so that
later runs of a command compute the same bytes. The cache is not trusted: what is damaged is made again.
"""

import hashlib
import json
import logging
import math
import shutil
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from swinir.atomic import atomic_path
from swinir.environment import machine
from swinir.inference.export import export
from swinir.inference.forward import Backend
from swinir.inference.runtimes import load_exported
from swinir.models.optimized import optimize
from swinir.models.swinir import SwinIR
from swinir.version import __version__
from swinir.weights.verify import sha256

NETWORK, CHOICE = "network.xml", "choice.json"
CACHE_BYTES = 500e6  # larger caches lose the networks that were used longest ago
WINDOWS = 16  # along each side of the image that is timed
ROUNDS = 5
GAIN = 1.1  # least speed of OpenVINO that pays for its memory: three to four times as much
LEAST_DB = 55  # of OpenVINO's output in bf16, against float32
MEASURED = ("cpu", "cores", "machine", "threads", "torch")  # facts of the machine that the choice depends on
logger = logging.getLogger(__name__)


def fastest(model: SwinIR, precision: str, cache: Path | None = None) -> Backend:
    """Return the faster form of a network on the CPU; this package's if OpenVINO, or room to keep a choice, is missing.

    Args:
        precision: "fp32" or "bf16".
        cache: folder for networks and choices; by default in PyTorch's cache, `torch.hub.get_dir()`.
    """
    ours = optimize(model, precision)
    if find_spec("openvino") is None or model.config.ape:
        return ours
    cache = cache or Path(torch.hub.get_dir()) / "swinir"
    folder = cache / _key(model, precision)
    try:
        choice = _read_choice(folder)
        if choice is None:
            _make_room(cache)
            folder.mkdir(parents=True, exist_ok=True)
            choice = _choose(model, ours, precision, folder)
            with atomic_path(folder / CHOICE) as temporary:
                temporary.write_text(json.dumps(choice))
        folder.touch()  # used last
        return load_exported(folder / NETWORK, precision) if choice["engine"] == "openvino" else ours
    except (OSError, ValueError, MemoryError) as error:
        logger.warning("OpenVINO cannot be used: %s", " ".join(str(error).split()))
        return ours


def _key(model: SwinIR, precision: str) -> str:
    """Hash everything that the choice depends on."""
    import openvino

    facts = machine(torch.device("cpu"))
    versions = __version__, openvino.__version__, find_spec("llvmlite") is not None  # which makes this package faster
    stated = [model.config.to_dict(), precision, *versions, *map(facts.get, MEASURED)]
    digest = hashlib.sha256(json.dumps(stated, sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def _read_choice(folder: Path) -> dict[str, Any] | None:
    """Read the choice that was made; None if there is none, or it or its network is damaged."""
    try:
        choice = json.loads((folder / CHOICE).read_text(encoding="utf-8"))
        if choice["engine"] == "openvino" and choice["sha256"] != _hashes(folder):
            return None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return choice if choice["engine"] in ("openvino", "torch") else None


def _hashes(folder: Path) -> list[str]:
    return [sha256(path) for path in (folder / NETWORK, (folder / NETWORK).with_suffix(".bin"))]


def _choose(model: SwinIR, ours: Backend, precision: str, folder: Path) -> dict[str, Any]:
    """Convert the network and time both forms, turn by turn."""
    export(model, folder / NETWORK, "openvino")
    theirs = load_exported(folder / NETWORK, precision)
    side = WINDOWS * model.config.window
    lq = torch.rand(1, model.config.in_chans, side, side, generator=torch.Generator().manual_seed(0))
    seconds: dict[str, list[float]] = {"torch": [], "openvino": []}
    for _ in range(ROUNDS):
        for name, network in (("torch", ours), ("openvino", theirs)):
            network(lq)  # wakes its threads, and lets those of the other one sleep
            start = time.perf_counter()
            restored = network(lq)
            seconds[name].append(time.perf_counter() - start)
    squared = (restored - ours.exact(lq)).square().mean().item()
    decibels = -10 * math.log10(max(squared, 1e-20))
    best = {name: min(found) for name, found in seconds.items()}
    pays = best["torch"] >= GAIN * best["openvino"] and decibels >= LEAST_DB
    return {"engine": "openvino" if pays else "torch", "seconds": best, "dB": decibels, "sha256": _hashes(folder)}


def _make_room(cache: Path) -> None:
    """Remove the networks that were used longest ago from a cache that is too large."""
    folders = sorted((path for path in cache.glob("*") if path.is_dir()), key=lambda path: path.stat().st_mtime)
    sizes = [sum(file.stat().st_size for file in folder.iterdir()) for folder in folders]
    while sum(sizes) > CACHE_BYTES:
        shutil.rmtree(folders.pop(0), ignore_errors=True)
        sizes.pop(0)
