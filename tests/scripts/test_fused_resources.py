"""Offline compilation of the fused layer: tensor-core code within the cards' limits, without a GPU."""

import importlib
import importlib.util
from pathlib import Path

import pytest
import torch

from swinir.models.fused import FusedLayer, launch_for

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed", allow_module_level=True)

# Bytes of local memory that a thread may take for want of registers, on cards without Hopper's instructions.
SPILLS = {"tiny": 16, "S": 16, "M": 64, "L": 208}
QUICK = [("S", 86), ("S", 90)]
ALL = [(network, card) for network in ("tiny", "S", "M", "L") for card in (80, 86, 89, 90)]


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / "scripts")
        script = importlib.import_module("fused_resources")
    import triton

    if not Path(triton.knobs.nvidia.cuobjdump.path).exists():
        pytest.skip("this build of Triton has no cuobjdump")
    return script


def used(script, network, dtype, card, window=8):
    layer = script.make_layer(network, window)
    launch = launch_for(layer.config.embed_dim, script.OPERANDS[dtype], divmod(card, 10))
    fused = FusedLayer(layer, script.OPERANDS[dtype], launch)
    return [script.resources(fused, card, *part) for part in fused.parts]


def check(script, network, card):
    (layer,) = used(script, network, "bf16", card)
    assert layer.product == ("wgmma" if card == 90 else "mma.sync")
    assert layer.shared_kb <= script.CARDS[card].program_kb
    assert layer.stack_bytes <= (0 if card == 90 else SPILLS[network])
    assert layer.programs >= 1


@pytest.mark.parametrize(("network", "card"), QUICK)
def test_the_layer_fits_the_card_and_uses_its_tensor_cores(script, network, card):
    check(script, network, card)


@pytest.mark.slow
@pytest.mark.parametrize(("network", "card"), [pair for pair in ALL if pair not in QUICK])
def test_layers_of_all_networks_fit_all_cards_and_use_their_tensor_cores(script, network, card):
    check(script, network, card)


@pytest.mark.slow
@pytest.mark.parametrize("card", [86, 90])
def test_float32_and_float16_compile_and_fit(script, card):
    for network, dtype in (("S", "fp32"), ("M", "fp16")):
        for kernel in used(script, network, dtype, card, window=7):
            assert kernel.shared_kb <= script.CARDS[card].program_kb
            assert (kernel.product == "fma") == (dtype == "fp32")


class Hopper:
    """Driver of a GPU that is not here: kernels are compiled for it and not launched."""

    def get_current_target(self):
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


class Compiled:
    """Kernel that is compiled where it would be launched."""

    def __init__(self, kernel):
        self.kernel = kernel

    def __getitem__(self, grid):
        return lambda *args, **options: self.kernel.run(*args, grid=grid, warmup=True, **options)


def test_one_compilation_serves_all_sizes_with_and_without_a_shift(script, monkeypatch):
    from triton.runtime import driver

    fused = FusedLayer(script.make_layer("S"), torch.bfloat16, launch_for(60, torch.bfloat16, (9, 0)))
    kernel, fused.kernel = fused.kernel, Compiled(fused.kernel)
    monkeypatch.setattr(driver, "_active", Hopper())
    monkeypatch.setattr(kernel, "device_caches", type(kernel.device_caches)(kernel.device_caches.default_factory))
    for fused.shift in (0, 4):
        for size in ((1, 8, 8), (1, 24, 40), (2, 64, 128)):
            fused.run(torch.zeros(*size, 60))
    (compiled,) = kernel.device_caches[0][0].values()
    assert "wgmma" in compiled.asm["ptx"]


def test_a_processor_holds_as_many_programs_as_its_registers_and_memory_allow(script):
    assert script.programs(script.CARDS[86], warps=4, registers=128, shared_kb=18) == 4  # 64K registers
    assert script.programs(script.CARDS[86], warps=4, registers=32, shared_kb=40) == 2  # 100 KB
    assert script.programs(script.CARDS[90], warps=8, registers=16, shared_kb=1) == 8  # 64 warps
    assert script.programs(script.CARDS[86], warps=8, registers=16, shared_kb=99.5) == 0  # 99 KB for a program
