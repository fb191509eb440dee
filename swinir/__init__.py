"""SwinIR Toolkit: image restoration with SwinIR.

    model = swinir.load_model("model_zoo/swinir/001_classicalSR_DF2K_s64w8_SwinIR-M_x4.pth")
    restored = swinir.restore(model, lq)  # (1, 3, H, W) in [0, 1] to (1, 3, 4H, 4W) in [0, 1]

Names are imported when first used, so that the command line answers before torch is loaded.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swinir.image_io.color import luma as luma
    from swinir.inference.restore import restore
    from swinir.inference.runtimes import load_exported as load_exported
    from swinir.metrics.full_reference import psnr as psnr
    from swinir.metrics.full_reference import psnrb as psnrb
    from swinir.metrics.full_reference import ssim as ssim
    from swinir.models.swinir import NetworkConfig as NetworkConfig
    from swinir.models.swinir import SwinIR as SwinIR
    from swinir.weights.checkpoint import load_model as load_model

try:
    __version__ = version("swinir-toolkit")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "unknown"

_HOMES = {
    "load_model": "checkpoint",
    "load_exported": "backends",
    "restore": "restoration",
    "SwinIR": "network",
    "NetworkConfig": "network",
    "psnr": "metrics",
    "ssim": "metrics",
    "psnrb": "metrics",
    "luma": "color",
}
__all__ = ["NetworkConfig", "SwinIR", "load_exported", "load_model", "luma", "psnr", "psnrb", "restore", "ssim"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"swinir.{_HOMES[name]}"), name)
