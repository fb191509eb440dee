"""SwinIR Toolkit: image restoration with SwinIR.

    enlarged = swinir.restore_image("photo.jpg", scale=2)  # a path, Pillow image or array: models are chosen

    model = swinir.load_model("model_zoo/swinir/001_classicalSR_DF2K_s64w8_SwinIR-M_x4.pth")
    restored = swinir.restore(model, lq)  # (1, 3, H, W) in [0, 1] to (1, 3, 4H, 4W) in [0, 1]

Names are imported when first used, so that the command line answers before torch is loaded.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from swinir.version import __version__ as __version__

if TYPE_CHECKING:
    from swinir.image_io.color import luma as luma
    from swinir.inference.options import RunOptions as RunOptions
    from swinir.inference.restore import restore as restore
    from swinir.inference.runtimes import load_exported as load_exported
    from swinir.metrics.full_reference import psnr as psnr
    from swinir.metrics.full_reference import psnrb as psnrb
    from swinir.metrics.full_reference import ssim as ssim
    from swinir.models.any_scale import at_scale as at_scale
    from swinir.models.optimized import optimize as optimize
    from swinir.models.swinir import NetworkConfig as NetworkConfig
    from swinir.models.swinir import SwinIR as SwinIR
    from swinir.photos.options import RestoreOptions as RestoreOptions
    from swinir.photos.restore_image import plan_image as plan_image
    from swinir.photos.restore_image import restore_image as restore_image
    from swinir.weights.checkpoint import load_model as load_model
    from swinir.weights.listing import list_models as list_models
    from swinir.weights.switch import JointModel as JointModel

_HOMES = {
    "restore_image": "photos.restore_image",
    "plan_image": "photos.restore_image",
    "RestoreOptions": "photos.options",
    "list_models": "weights.listing",
    "load_model": "weights.checkpoint",
    "JointModel": "weights.switch",
    "load_exported": "inference.runtimes",
    "restore": "inference.restore",
    "RunOptions": "inference.options",
    "optimize": "models.optimized",
    "at_scale": "models.any_scale",
    "SwinIR": "models.swinir",
    "NetworkConfig": "models.swinir",
    "psnr": "metrics.full_reference",
    "ssim": "metrics.full_reference",
    "psnrb": "metrics.full_reference",
    "luma": "image_io.color",
}
__all__ = [
    "JointModel",
    "NetworkConfig",
    "RestoreOptions",
    "RunOptions",
    "SwinIR",
    "at_scale",
    "list_models",
    "load_exported",
    "load_model",
    "luma",
    "optimize",
    "plan_image",
    "psnr",
    "psnrb",
    "restore",
    "restore_image",
    "ssim",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"swinir.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
