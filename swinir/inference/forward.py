"""A network as a function of an image: in exact or half precision, with an error of its own for lack of memory."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from swinir.inference.options import RunOptions
from swinir.inference.tiling import TooLargeError
from swinir.models.optimized import OptimizedSwinIR, optimize, resolve_precision
from swinir.models.rcan import RCAN, BaselineConfig, ExternalNetwork
from swinir.models.swinir import NetworkConfig, SwinIR

logger = logging.getLogger(__name__)


class Backend(Protocol):
    """A network that is no PyTorch module, in one precision: optimized, or run by another library."""

    device: torch.device
    dtype: torch.dtype

    @property
    def config(self) -> NetworkConfig | BaselineConfig:
        """Channels, scale and window of the network."""

    def __call__(self, x: Tensor, /) -> Tensor:
        """(B, in_chans, H, W) of whole windows to (B, in_chans, H*upscale, W*upscale)."""


Restorer = SwinIR | RCAN  # networks that can be trained
Runnable = Restorer | ExternalNetwork | Backend  # networks that `restore` can run


def place_of(model: Runnable) -> Tensor | Backend:
    """An object with the device and the dtype of a network."""
    return next(model.parameters()) if isinstance(model, nn.Module) else model


def optimize_for(model: Runnable, options: RunOptions) -> Runnable:
    """The form of a network to hold while many images are restored: SwinIR optimized, others as they are."""
    return optimize(model, options.precision, compile=options.compile) if isinstance(model, SwinIR) else model


def as_function(model: Runnable, options: RunOptions) -> Callable[[Tensor], Tensor]:
    """The network as a function of an image on any device; its output lies on the network's.

    A network that is optimized or exported already has a precision of its own, which "fp32", the default, leaves alone.

    Raises:
        ValueError: for another precision than that of a network that has its own.
    """
    device = place_of(model).device
    network, precision = optimize_for(model, options), resolve_precision(options.precision, device)
    if not isinstance(network, nn.Module):
        own = network.precision if isinstance(network, OptimizedSwinIR) else "fp32"
        if precision not in ("fp32", own):
            kind = "optimized" if isinstance(network, OptimizedSwinIR) else "exported"
            raise ValueError(f"an {kind} network computes in {own}, got precision {precision!r}; leave it out")
        precision = own

    def run(x: Tensor, precision: str) -> Tensor:
        if isinstance(network, nn.Module):
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                restored: Tensor = network(x)
            return restored
        if isinstance(network, OptimizedSwinIR) and network.precision != precision:
            return network.exact(x)
        return network(x)

    def forward(x: Tensor) -> Tensor:
        try:
            with exact_convolutions():
                restored = run(x.to(device), precision)
                if precision == "bf16" and not restored.isfinite().all():
                    logger.warning("bf16 gave values that are not finite; computing these pixels in fp32")
                    restored = run(x.to(device), "fp32")
                return restored
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
        # Outside the handler: the error holds the tensors that are to be freed.
        if device.type == "cuda":
            torch.cuda.empty_cache()
        raise TooLargeError(f"{device} has no memory for {x.shape[-1]}x{x.shape[-2]} pixels at once")

    return forward


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Keep convolutions in float32: GPUs since Ampere otherwise round their operands to TF32's ten bits."""
    cudnn = torch.backends.cudnn
    with cudnn.flags(
        enabled=cudnn.enabled, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False
    ):
        yield


def out_of_memory(error: BaseException) -> bool:
    """True for errors that mean lack of memory, for which PyTorch has a class of its own on GPUs only."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
