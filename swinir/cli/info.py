"""`swinir info`: what a weights file holds."""

import json
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from swinir.models.swinir import NetworkConfig

DEFAULT_SIZE = (256, 256)  # the low-quality image for which the released program's page states its cost

# What the paper prints where it differs from the released networks, by task and scale.
LEAVES_OUT = "its Table 3 leaves one 3x3 convolution out"
PAPER_PARAMETERS = {
    ("lightweight_sr", 2): ("878K", LEAVES_OUT),
    ("lightweight_sr", 3): ("886K", LEAVES_OUT),
    ("lightweight_sr", 4): ("897K", LEAVES_OUT),
    ("gray_dn", 1): ("12.0M", "which this network does not have"),
    ("color_dn", 1): ("12.0M", "which this network does not have"),
}


def info(
    file: Annotated[str, typer.Argument(help="Weights file, or a name that `swinir zoo list` shows.")],
    size: Annotated[
        str | None,
        typer.Option(
            metavar="HxW",
            help="Low-quality image to count operations for, in pixels (default 256x256).",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Show what a weights file holds: network, task, parameters, cost, and what had to be assumed."""
    requested = _parse_size(size) if size else None
    facts = _facts(file, requested)
    print(json.dumps(facts, indent=2) if as_json else _text(facts))


def _parse_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})", text)
    if match is None:
        raise ValueError(f"--size must be HEIGHTxWIDTH in pixels, got {text!r}; try --size 256x256")
    return int(match[1]), int(match[2])


def _facts(file: str, requested: tuple[int, int] | None) -> dict[str, Any]:
    from swinir.models.complexity import count_macs, count_macs_as_published
    from swinir.weights.checkpoint import find_checkpoint, guess_tasks, read_checkpoint, sha256

    path = find_checkpoint(file)
    checkpoint = read_checkpoint(path)
    network = checkpoint.network
    guesses = guess_tasks(network)
    size = requested or DEFAULT_SIZE
    if network.ape:
        size = (network.img_size, network.img_size)
        if requested not in (None, size):
            raise ValueError(f"{path}: this network takes only images of {size[0]}x{size[1]}; leave --size out")
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "sha256": sha256(path),
        "key": checkpoint.key,
        "task": checkpoint.task or (guesses[0] if len(guesses) == 1 else None),
        "task_told_by": "file" if checkpoint.task else "network" if len(guesses) == 1 else None,
        "possible_tasks": guesses,
        "step": checkpoint.step,
        "self_described": checkpoint.self_described,
        "network": network.to_dict(),
        "parameters": sum(tensor.numel() for tensor in checkpoint.state.values()),
        "parameters_in_paper": _in_paper(network, guesses),
        "macs": count_macs(network, *size),
        "macs_size": list(size),
        "macs_as_in_paper": count_macs_as_published(network) if guesses == ["lightweight_sr"] else None,
        "training_patch": network.img_size,
        "rules": list(checkpoint.rules),
    }


def _in_paper(network: "NetworkConfig", tasks: list[str]) -> str | None:
    """The paper's count and why it differs, for exactly the released networks it is wrong about."""
    from dataclasses import replace

    from swinir.tasks import TASKS

    for task in tasks:
        released = TASKS[task].network_for(network.upscale, img_size=network.img_size)
        if replace(network, drop_path_rate=0.0, use_checkpoint=False) == released:
            count, why = PAPER_PARAMETERS.get((task, network.upscale), (None, ""))
            return f"{count}, {why}" if count else None
    return None


def _text(facts: dict[str, Any]) -> str:
    height, width = facts["macs_size"]
    source = {"file": "as the file states", "network": "by its network"}.get(facts["task_told_by"])
    paper = facts["parameters_in_paper"]
    rows = {
        "file": facts["file"],
        "bytes": f"{facts['bytes']:,}",
        "SHA-256": facts["sha256"],
        "weights under": facts["key"] or "the top level",
        "task": f"{facts['task']} ({source})" if source else ", ".join(facts["possible_tasks"]) or "cannot be told",
        "step": "not stated" if facts["step"] is None else f"{facts['step']:,}",
        "parameters": f"{facts['parameters']:,}" + (f" (the paper says {paper})" if paper else ""),
        "MACs": f"{facts['macs'] / 1e9:,.1f} G for a {height}x{width} image, attention included",
        "MACs as in paper": _macs_in_paper(facts["macs_as_in_paper"]),
        "training patch": f"{facts['training_patch']}x{facts['training_patch']}",
    }
    lines = [f"{name:<16} {value}" for name, value in rows.items() if value]
    lines += ["network", *(f"  {name:<15} {_option(value)}" for name, value in facts["network"].items())]
    if facts["rules"]:
        lines += ["assumed, since the file does not tell", *(f"  {rule}" for rule in facts["rules"])]
    return "\n".join(lines)


def _macs_in_paper(macs: int | None) -> str:
    return f"{macs / 1e9:,.1f} G, Table 3's way of counting: a 1024x720 output, parts left out" if macs else ""


def _option(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value) if value != "" else "none"
