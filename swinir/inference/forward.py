"""A network as a function of an image: in exact or half precision, with an error of its own for lack of memory."""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from swinir.inference.memory import release_memory
from swinir.inference.options import RunOptions
from swinir.inference.runtimes import ExportedNetwork
from swinir.inference.tiling import TooLargeError
from swinir.inference.transfer import to_device
from swinir.models.optimized import OptimizedSwinIR, exact_convolutions, optimize, resolve_precision
from swinir.models.rcan import RCAN, BaselineConfig, ExternalNetwork
from swinir.models.swinir import NetworkConfig, SwinIR

logger = logging.getLogger(__name__)

EXPORTED_MEMORY = 4  # measured: OpenVINO and onnxruntime take two to four times the memory of this package's form
# Parts of the messages of the CPU's allocator, CUDA and Triton, cuBLAS, cuDNN; oneDNN; Python's threads.
LACK_OF_MEMORY = (
    "can't allocate memory", "out of memory", "ALLOC_FAILED", "ALLOCATION_FAILED",
    "could not create a primitive", "can't start new thread",
)  # fmt: skip


class Backend(Protocol):
    """A network that is no PyTorch module, in one precision: optimized, or run by another library."""

    device: torch.device
    dtype: torch.dtype
    precision: str

    @property
    def exact(self) -> "Backend":
        """The same network in fp32."""

    @property
    def config(self) -> NetworkConfig | BaselineConfig:
        """Channels, scale and window of the network."""

    def __call__(self, x: Tensor, /) -> Tensor:
        """(B, in_chans, H, W) of whole windows to (B, in_chans, H*upscale, W*upscale)."""


Result = TypeVar("Result")
Restorer = SwinIR | RCAN  # networks that can be trained
Runnable = Restorer | ExternalNetwork | Backend  # networks that `restore` can run


def place_of(model: Runnable) -> Tensor | Backend:
    """An object with the device and the dtype of a network."""
    return next(model.parameters()) if isinstance(model, nn.Module) else model


def memory_factor(model: Runnable) -> int:
    """Memory that a network takes for a tile, in multiples of what `swinir.inference.memory` estimates."""
    return EXPORTED_MEMORY if isinstance(model, ExportedNetwork) else 1


def optimize_for(model: Runnable, options: RunOptions) -> Runnable:
    """The form of a network to hold while many images are restored: SwinIR optimized, others as they are."""
    return optimize(model, options.precision, compile=options.compile) if isinstance(model, SwinIR) else model


def as_function(model: Runnable, options: RunOptions) -> Callable[[Tensor], Tensor]:
    """The network as a function of an image on any device; its output lies on the network's.

    Of a network of any scale that is not at an integer one, this is the part at low resolution.
    A network that is optimized or exported already has a precision of its own, which "fp32", the default, and "auto"
    leave alone.

    Raises:
        ValueError: for another precision than that of a network that has its own.
    """
    device, dtype = place_of(model).device, place_of(model).dtype
    network, precision = optimize_for(model, options), resolve_precision(options.precision, device)
    if not isinstance(network, nn.Module):
        precision = network.precision
        if options.precision not in ("fp32", "auto", precision):
            kind = "optimized" if isinstance(network, OptimizedSwinIR) else "exported"
            raise ValueError(
                f"an {kind} network computes in {precision}, got precision {options.precision!r}; leave it out"
            )

    def run(x: Tensor, precision: str) -> Tensor:
        if not isinstance(network, nn.Module):
            backend = network if network.precision == precision else network.exact
            enlarged_later = isinstance(backend, OptimizedSwinIR) and backend.phase_weights is not None
            return backend.coefficients(x) if enlarged_later else backend(x)  # type: ignore[attr-defined]
        half = precision == "bf16"
        with nullcontext() if half else exact_convolutions(), torch.autocast(device.type, torch.bfloat16, enabled=half):
            restored: Tensor = network(x)
        return restored

    def checked(x: Tensor) -> Tensor:
        x = to_device(x, device).to(dtype)
        restored = run(x, precision)
        if precision == "bf16" and not restored.isfinite().all():
            logger.warning("bf16 gave values that are not finite; computing these pixels in fp32")
            restored = run(x, "fp32")
        return restored

    return lambda x: within_memory(device, partial(checked, x), (x.shape[-2], x.shape[-1]))


def within_memory(device: torch.device, work: Callable[[], Result], size: tuple[int, int]) -> Result:
    """Return what `work` returns; if memory runs out, drop what was kept for speed, and do it again from the start.

    Args:
        size: height and width of the image that it works on.

    Raises:
        TooLargeError: when memory runs out nevertheless.
    """
    for _ in range(2):
        try:
            return work()
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
        # Outside the handler: the error holds the tensors that are to be freed.
        if not release_memory(device):
            break
    raise TooLargeError(f"{device} has no memory for {size[1]}x{size[0]} pixels at once")


def out_of_memory(error: BaseException) -> bool:
    """True for errors that mean lack of memory, for which PyTorch has a class of its own on GPUs only."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(text in str(error) for text in LACK_OF_MEMORY)
