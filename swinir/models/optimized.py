"""SwinIR optimized for inference: the output of `SwinIR.forward`, sooner and in less memory.

The stream of tokens is one (B, H, W, C) tensor, an image with its channels last, which the Swin Transformer layers
change in place. Weights are converted once, and the linear end of "pixelshuffle" becomes one convolution.
"""

import copy
import functools
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from swinir.models.any_scale import at_scale
from swinir.models.cpu_layer import CpuLayer, cpu_problem
from swinir.models.eager_layer import EagerLayer
from swinir.models.fused import FusedLayer, fused_problem
from swinir.models.graphs import Recordings
from swinir.models.reconstruction import MergedShuffles, Reconstruction
from swinir.models.swinir import RSTB, SwinIR, SwinTransformerLayer, enlarge, enlarged_size, framed

logger = logging.getLogger(__name__)

PRECISIONS = ("fp32", "bf16", "auto")
M = TypeVar("M", bound=nn.Module)
LayerForm = Literal["fused", "kernels", "eager", "compiled"]
NATIVE_BF16 = ("avx512_bf16", "amx_bf16")  # instruction sets of CPUs with which bf16 was measured to be faster
# In float32, tensor cores do not help, and wider layers spill registers: by estimate PyTorch's operators are faster.
EXACT_CHANNELS = 64
# On a GPU. cuDNN's, PyTorch's first choice on the newest ones, plans half a second for each number of windows.
ATTENTION = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


class OptimizedSwinIR:
    """(B, in_chans, H, W) in [0, 1] to (B, in_chans, H*upscale, W*upscale), as `SwinIR`, without gradients.

    It holds copies: later changes of `model` do not reach it. Make it by `optimize`.

    Args:
        model: the network to copy, on any device, in any mode.
        precision: "fp32" computes in the weights' own dtype. In "bf16" the operands of linear layers, attention and
            the RSTBs' convolutions have 16 bits; the stream, norms and the reconstruction do not.
        layers: "fused", one Triton kernel for a layer; "kernels", our own between oneDNN's linear layers; "eager",
            PyTorch's operators; "compiled", those fused by torch.compile, which gains nothing on CPUs. None is "fused"
            on GPUs and "kernels" on CPUs that can run it, else "eager".
        graphs: on a GPU, record CUDA graphs for small inputs of sizes that return.

    Attributes:
        recordings: the CUDA graphs, if any can be recorded.
    """

    def __init__(
        self, model: SwinIR, precision: str = "fp32", *, layers: LayerForm | None = None, graphs: bool = True
    ) -> None:
        assert precision in ("fp32", "bf16")
        self.config, self.precision = model.config, precision
        self.device, self.dtype = model.conv_first.weight.device, model.conv_first.weight.dtype
        wide = torch.promote_types(self.dtype, torch.float32)
        narrow = torch.bfloat16 if precision == "bf16" else self.dtype
        # On CPUs channels-last convolutions in float32 save 2 % of the time, but sum all products in one go: three
        # times the rounding error of the others, enough to move the metrics of small images in the sixth digit.
        exact_cpu = self.device.type == "cpu" and narrow == wide
        layout = torch.contiguous_format if exact_cpu else torch.channels_last
        form = self.form = Form(wide, narrow, layout, layers or _fastest_layers(model, narrow))
        self.recordings = Recordings(self.device) if graphs and self.device.type == "cuda" else None
        with torch.inference_mode(False), torch.no_grad():
            self._source = copy.deepcopy(model) if precision == "bf16" else None
            self.mean = model.mean.to(wide, copy=True)
            self.position = model.absolute_pos_embed.to(wide, copy=True) if self.config.ape else None
            self.conv_first = _ready(model.conv_first, wide, layout)
            norm = model.patch_embed.norm
            self.patch_norm = None if norm is None else _ready(norm, wide)
            self.layers = [OptimizedRSTB(layer, form) for layer in model.layers]  # type: ignore[arg-type]
            self.norm = _ready(model.norm, wide)
            self.conv_after_body = _ready(model.conv_after_body, narrow, layout)
            self.reconstruction = _optimize_reconstruction(model, form)
            self.phase_weights = _ready(model.phase_weights, wide) if self.config.any_scale else None

    @functools.cached_property
    def exact(self) -> "OptimizedSwinIR":
        """The same network in fp32, for images whose values bf16 cannot hold."""
        if self._source is None:
            return self
        return OptimizedSwinIR(self._source, "fp32", layers=self.form.layers, graphs=self.recordings is not None)

    def __call__(self, x: Tensor) -> Tensor:
        restored = self.coefficients(x)
        if self.phase_weights is None:
            return restored
        with torch.no_grad():
            size = enlarged_size(x, self.config.upscale)
            return enlarge(self.phase_weights, restored.to(self.mean.dtype), size).to(self.dtype)

    # For all callers alike: in another mode layers would be compiled anew, and recordings could not be used.
    @torch.inference_mode(False)
    @torch.no_grad()
    def coefficients(self, x: Tensor) -> Tensor:
        """Compute the coefficients of a network of any scale, (B, J * in_chans, H, W); of another, its output."""
        if self.device.type != "cuda":
            return self._compute(x)
        with sdpa_kernel(ATTENTION), exact_convolutions() if self.precision == "fp32" else nullcontext():
            return self._compute(x) if self.recordings is None else self.recordings.run(self._compute, x)

    def _compute(self, x: Tensor) -> Tensor:
        return framed(self.config, self.mean, x.to(self.mean.dtype), self._restore).to(self.dtype)

    def _restore(self, x: Tensor) -> Tensor:
        """Map the normalised input to the normalised output."""
        shallow = self.conv_first(x.contiguous(memory_format=self.form.layout))
        stream = shallow.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format)
        if self.patch_norm is not None:
            stream = self.patch_norm(stream)
        if self.position is not None:
            stream += rearrange(self.position, "b (h w) c -> b h w c", h=x.shape[-2])
        for layer in self.layers:
            layer.run(stream)
        image = self.form.image(self.norm(stream))
        del stream
        deep = shallow.add_(self.conv_after_body(image))
        del image
        return self.reconstruction(deep, x)


def optimize(model: SwinIR, precision: str = "fp32", *, compile: bool = False) -> OptimizedSwinIR:
    """Copy a network's present weights into a form that is faster and takes less memory, for inference only.

    `swinir.restore` does this itself at each call with a SwinIR; hold the optimized form to restore many images.

    Args:
        precision: "fp32", "bf16", or "auto", see `resolve_precision`.
        compile: fuse the operators of layers by torch.compile, which takes a minute or two at the first image.

    Raises:
        ValueError: for an unknown precision.
    """
    device = model.conv_first.weight.device
    precision = resolve_precision(precision, device)
    model = at_scale(model, model.config.upscale)
    return OptimizedSwinIR(model, precision, layers="compiled" if compile else None)


def _fastest_layers(model: SwinIR, narrow: torch.dtype) -> LayerForm:
    """Choose "fused" or "kernels" where they run, else "eager", and tell the reason."""
    weight = model.conv_first.weight
    problem = fused_problem(model.config, weight.device)
    if problem is not None and weight.device.type == "cpu":
        problem = cpu_problem(weight.dtype)
        if problem is None:
            return "kernels"
    elif problem is None and narrow == torch.float64:
        problem = "the fused layer computes in 32 bits at most, got float64"
    elif problem is None and narrow == torch.float32 and model.config.embed_dim > EXACT_CHANNELS:
        problem = f"the fused layer is not used in float32 for more than {EXACT_CHANNELS} channels"
    if problem is not None:
        logger.info("%s; PyTorch's operators are used instead", problem)
        return "eager"
    if problem := _failure(model, narrow):
        logger.warning("the fused layer fails here (%s); PyTorch's operators are used instead", problem)
        return "eager"
    return "fused"


def _failure(model: SwinIR, narrow: torch.dtype) -> str | None:
    """Run the first layer of each RSTB on one window; return the error, as of a missing C compiler, if there is one."""
    config = model.config
    window = torch.zeros(1, config.window, config.window, config.embed_dim, device=model.conv_first.weight.device)
    try:
        for block in model.layers:
            FusedLayer(block.residual_group.blocks[0], narrow).run(window)  # type: ignore[union-attr, index, arg-type]
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of Triton, compilers and drivers
        return (str(error).splitlines() or [""])[0] or type(error).__name__
    return None


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Keep convolutions in float32: GPUs since Ampere otherwise round their operands to TF32's ten bits.

    The caller's setting is put back. Networks in bf16 do without: TF32 has more bits, and is faster.
    """
    cudnn = torch.backends.cudnn
    # The setting of PyTorch 2.9 and newer, which refuses to read the old one where convolutions differ from the rest.
    owner, name, exact = (
        (cudnn.conv, "fp32_precision", "ieee") if hasattr(cudnn, "conv") else (cudnn, "allow_tf32", False)
    )
    before = getattr(owner, name)
    setattr(owner, name, exact)
    try:
        yield
    finally:
        setattr(owner, name, before)


def resolve_precision(precision: str, device: torch.device) -> str:
    """Turn "auto" into bf16 on GPUs and CPUs that compute in it natively, as far as PyTorch tells, else fp32.

    Raises:
        ValueError: for an unknown precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        native = device.type == "cpu" and any(map(cpu_capabilities().get, NATIVE_BF16))
    return "bf16" if native else "fp32"


def cpu_capabilities() -> Mapping[str, Any]:
    """Return the instruction sets of the CPU; none where PyTorch is too old to tell."""
    return getattr(torch.cpu, "get_capabilities", dict)()


class Form(NamedTuple):
    """Dtypes, memory layout and form of the layers, the same for all parts of an optimized network."""

    wide: torch.dtype  # of the stream, the norms, and the reconstruction
    narrow: torch.dtype  # of the operands of products
    layout: torch.memory_format  # of images and the convolutions' weights
    layers: LayerForm

    def layer(self, layer: SwinTransformerLayer) -> EagerLayer | FusedLayer | CpuLayer:
        """Copy a layer."""
        if self.layers == "kernels":
            return CpuLayer(layer, self.narrow)
        if self.layers == "fused":
            return FusedLayer(layer, self.narrow)
        return EagerLayer(layer, self.narrow, compile=self.layers == "compiled")

    def image(self, stream: Tensor) -> Tensor:
        """Convert the stream (B, H, W, C) to the operand (B, C, H, W) of a convolution."""
        return stream.permute(0, 3, 1, 2).to(self.narrow).contiguous(memory_format=self.layout)


class OptimizedRSTB:
    """Residual Swin Transformer block (Section 3.2)."""

    def __init__(self, block: RSTB, form: Form) -> None:
        self.form, self.residual = form, block.residual
        self.layers = [form.layer(layer) for layer in block.residual_group.blocks]  # type: ignore[arg-type]
        self.conv = _ready(block.conv, form.narrow, form.layout)

    def run(self, x: Tensor) -> None:
        """Apply the block in place to the stream x, (B, H, W, C)."""
        deep = x.clone()
        for layer in self.layers:
            layer.run(deep)
        image = self.form.image(deep)
        del deep
        change = self.conv(image).permute(0, 2, 3, 1)
        if self.residual:
            x += change
        else:
            x.copy_(change)


def _optimize_reconstruction(model: SwinIR, form: Form) -> Reconstruction:
    """Copies of the steps; of "pixelshuffle", all after the only activation in one."""
    steps, residual = model.reconstruction()
    ready = tuple(_ready(step, form.wide, form.layout) for step in steps)
    if model.config.upsampler == "pixelshuffle":
        before, upsample, last = ready
        ready = before, MergedShuffles(upsample, last, form.layout)
    return Reconstruction(ready, residual)


def _ready(module: M, dtype: torch.dtype, layout: torch.memory_format = torch.contiguous_format) -> M:
    """Copy a module for inference."""
    ready = copy.deepcopy(module).requires_grad_(False).eval()
    return ready.to(dtype).to(memory_format=layout)
