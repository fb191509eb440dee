"""Offline compilation of the fused layer: tensor-core code within the cards' limits, without a GPU."""

import importlib
import importlib.util
from pathlib import Path

import pytest

from swinir.models.fused import FusedLayer, candidates

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed", allow_module_level=True)

# Bytes of local memory of a thread that spills may take; 0 where none are named.
SPILLS = {("M", 80): 64, ("M", 86): 64, ("M", 89): 64, ("L", 80): 208, ("L", 86): 192, ("L", 89): 192, ("S", 80): 8}
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
    launch = candidates(layer.config.embed_dim, script.OPERANDS[dtype], divmod(card, 10))[0]
    fused = FusedLayer(layer, script.OPERANDS[dtype], launch)
    return [script.resources(fused, card, *part) for part in fused.parts]


def check(script, network, card):
    (layer,) = used(script, network, "bf16", card)
    assert layer.product == ("wgmma" if card == 90 else "mma.sync")
    assert layer.shared_kb <= script.CARDS[card].program_kb
    assert layer.stack_bytes <= SPILLS.get((network, card), 0)
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


def test_a_processor_holds_as_many_programs_as_its_registers_and_memory_allow(script):
    assert script.programs(script.CARDS[86], warps=4, registers=128, shared_kb=18) == 4  # 64K registers
    assert script.programs(script.CARDS[86], warps=4, registers=32, shared_kb=40) == 2  # 100 KB
    assert script.programs(script.CARDS[90], warps=8, registers=16, shared_kb=1) == 8  # 64 warps
    assert script.programs(script.CARDS[86], warps=8, registers=16, shared_kb=99.5) == 0  # 99 KB for a program
