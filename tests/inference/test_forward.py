"""A network as a function: either form of SwinIR, one precision for each, and options that check themselves."""

import pytest
import torch
from networks import CONFIGS, live

from swinir.inference.forward import as_function, optimize_for, out_of_memory
from swinir.inference.options import RunOptions
from swinir.inference.restore import restore
from swinir.models.optimized import OptimizedSwinIR, optimize
from swinir.models.rcan import BaselineConfig, ExternalNetwork

LQ = torch.rand(1, 3, 21, 18, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_held_form_restores_as_its_network_does(precision):
    network = live(CONFIGS["pixelshuffle x2"])
    held, options = optimize(network, precision), RunOptions(16, 8, precision=precision)
    expected = restore(network, LQ, options)
    assert torch.equal(restore(held, LQ, options), expected)
    assert torch.equal(restore(held, LQ, options, precision="fp32"), expected)  # the default leaves its precision alone


def test_a_held_form_has_no_other_precision():
    with pytest.raises(ValueError, match="an optimized network computes in fp32, got precision 'bf16'; leave it out"):
        as_function(optimize(live(CONFIGS["pixelshuffle x2"])), RunOptions(precision="bf16"))


def test_only_swinir_is_optimized():
    network, other = live(CONFIGS["pixelshuffle x2"]), torch.nn.Identity()
    held = optimize_for(network, RunOptions(precision="bf16"))
    assert isinstance(held, OptimizedSwinIR)
    assert held.precision == "bf16"
    assert optimize_for(held, RunOptions()) is held
    assert optimize_for(other, RunOptions()) is other


def test_options_are_checked():
    with pytest.raises(ValueError, match="tile must be a number of pixels, 'auto' or None, got 'all'"):
        RunOptions("all")
    with pytest.raises(TypeError, match="tile_size"):
        restore(live(CONFIGS["pixelshuffle x2"]), LQ, tile_size=64)


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="PyTorch 2.9 brought the setting")
@pytest.mark.parametrize("chosen", ["none", "ieee", "tf32"])
def test_convolutions_are_exact_in_fp32_and_the_callers_setting_is_put_back(chosen):
    def settings():
        backends = torch.backends
        return [part.fp32_precision for part in (backends, backends.cudnn, backends.cudnn.conv, backends.cuda.matmul)]

    class Seeing(ExternalNetwork):
        def __init__(self):
            super().__init__()
            self.config, self.conv = BaselineConfig("seeing", 3, 1), torch.nn.Conv2d(3, 3, 1)

        def forward(self, x):
            seen.append(torch.backends.cudnn.conv.fp32_precision)
            return self.conv(x)

    seen, start = [], settings()
    torch.backends.fp32_precision = chosen
    try:
        before = settings()
        for precision in ("fp32", "bf16"):
            restore(Seeing(), LQ, precision=precision)
            assert settings() == before
    finally:
        torch.backends.fp32_precision = "none"
    assert seen == ["ieee", before[2]]
    assert settings() == start


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("Triton Error [CUDA]: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
    ],
)
def test_lack_of_memory_has_many_names(error, expected):
    assert out_of_memory(error) == expected
