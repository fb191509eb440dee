"""Resources of the fused layer, compiled for GPUs that are not here: `python scripts/fused_resources.py`.

Each network's layer is compiled by Triton for each card and dtype of operands. A line of the Markdown table has the
launch parameters, registers and bytes of local memory (spills) of a thread, shared memory of a program, programs and
warps that a processor holds, and the instructions of the products. Nothing is run.
"""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import triton
import typer
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from swinir.models.fused import FusedLayer, Launch, candidates
from swinir.models.swinir import NetworkConfig, SwinIR, SwinTransformerLayer

NETWORKS = {"tiny": (48, 2), "S": (60, 6), "M": (180, 6), "L": (240, 8)}
OPERANDS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16", int: "i32", float: "fp32"}


@dataclass(frozen=True)
class Card:
    """Limits of a GPU: KB of shared memory of a program and of a processor, and the processor's warps."""

    program_kb: int
    processor_kb: int
    warps: int


# By compute capability; CUDA C++ Programming Guide, "Technical Specifications per Compute Capability".
CARDS = {80: Card(163, 164, 64), 86: Card(99, 100, 48), 89: Card(99, 100, 48), 90: Card(227, 228, 64)}
PARTS = {(True, True): "layer", (True, False): "attention", (False, True): "MLP"}


@dataclass(frozen=True)
class Resources:
    """Resources of one compiled kernel; registers and stack of a thread, shared memory of a program."""

    registers: int
    stack_bytes: int
    shared_kb: float
    programs: int
    product: str


def make_layer(network: str, window: int = 8) -> SwinTransformerLayer:
    """A shifted layer of a network, with random weights."""
    dim, heads = NETWORKS[network]
    config = NetworkConfig(embed_dim=dim, num_heads=(heads,), depths=(2,), window_size=window, img_size=4 * window)
    layer: Any = SwinIR(config).layers[0]
    return layer.residual_group.blocks[1]


def resources(fused: FusedLayer, capability: int, attention: bool, mlp: bool) -> Resources:
    """Compile a kernel of the layer for a compute capability, as `FusedLayer.run` would on such a GPU."""
    constants = fused.constants | {"attention": attention, "mlp": mlp}
    values = [torch.empty(0), *fused.weights, *fused.eps, 1, 1, 1, 1]
    names = [name for name in fused.kernel.arg_names if name not in constants]
    types = {
        name: TYPES[value.dtype if isinstance(value, torch.Tensor) else type(value)]
        for name, value in zip(names, values, strict=True)
    }
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(fused.kernel.arg_names)
        if types.get(name, "").startswith("*")
    }
    source = ASTSource(fused.kernel, types | dict.fromkeys(constants, "constexpr"), constants, aligned)
    launch = fused.launch
    options = {"num_warps": launch.warps, "num_stages": launch.stages, "maxnreg": launch.registers}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    ptx = compiled.asm["ptx"]
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        words = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        report = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", report)
    assert found, report
    registers, shared = int(found[1]), compiled.metadata.shared / 1024
    held = programs(CARDS[capability], launch.warps, registers, shared)
    product = next((name for name in ("wgmma", "mma.sync") if name in ptx), "fma")
    return Resources(registers, int(found[2]), shared, held, product)


def programs(card: Card, warps: int, registers: int, shared_kb: float) -> int:
    """Count the programs that a processor holds at a time; 0 if not even one."""
    # 64K registers are given to warps in units of 8 for a thread; 1 KB is kept beside each program's shared memory.
    by_registers = 65536 // (-(-registers // 8) * 8 * 32 * warps)
    by_memory = int(card.processor_kb // (shared_kb + 1)) if shared_kb <= card.program_kb else 0
    return min(by_registers, by_memory, card.warps // warps)


def describe(launch: Launch) -> str:
    """The launch parameters in a table's cell, without those that are zero or one."""
    names = ("warps", "block", "registers", "windows", "stages", "step")
    values = {name: getattr(launch, name) for name in names}
    return ", ".join(f"{name} {value}" for name, value in values.items() if value and (value > 1 or name == "warps"))


app = typer.Typer(add_completion=False)


@app.command(help=__doc__)
def main(
    networks: Annotated[str, typer.Option(help="names, with commas")] = ",".join(NETWORKS),
    cards: Annotated[str, typer.Option(help="compute capabilities, with commas")] = ",".join(map(str, CARDS)),
    operands: Annotated[str, typer.Option(help="dtypes, with commas")] = ",".join(OPERANDS),
    alternatives: Annotated[bool, typer.Option(help="all launch parameters worth timing")] = False,
) -> None:
    print(
        "| network | operands | card | kernel | launch | registers | stack | shared KB | programs | warps | products |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for network in networks.split(","):
        layer = make_layer(network)
        for dtype in operands.split(","):
            for card in map(int, cards.split(",")):
                launches = candidates(layer.config.embed_dim, OPERANDS[dtype], divmod(card, 10))
                for launch in launches if alternatives else launches[:1]:
                    fused = FusedLayer(layer, OPERANDS[dtype], launch)
                    for part in fused.parts:
                        used = resources(fused, card, *part)
                        cells = [network, dtype, f"sm_{card}", PARTS[part], describe(launch), used.registers]
                        cells += [used.stack_bytes, round(used.shared_kb), used.programs, used.programs * launch.warps]
                        print("| " + " | ".join(map(str, [*cells, used.product])) + " |", flush=True)


if __name__ == "__main__":
    app()
