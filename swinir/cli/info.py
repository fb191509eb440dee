"""`swinir info`: the network, task and cost of a weights file."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swinir.cli.options import print_table
from swinir.report.text_table import TextTable

if TYPE_CHECKING:
    from swinir.models.swinir import NetworkConfig
    from swinir.weights.multitask import JointWeights

DEFAULT_SIZE = (256, 256)  # of the low-quality image for which the released program's page states its cost

# The paper's parameter counts that differ from the released networks, by task and scale, with the reason.
LEAVES_OUT = "its Table 3 omits one 3x3 convolution"
PAPER_PARAMETERS = {
    ("lightweight_sr", 2): ("878K", LEAVES_OUT),
    ("lightweight_sr", 3): ("886K", LEAVES_OUT),
    ("lightweight_sr", 4): ("897K", LEAVES_OUT),
    ("gray_dn", 1): ("12.0M", "which this network does not have"),
    ("color_dn", 1): ("12.0M", "which this network does not have"),
}


def info(
    file: Annotated[
        str, typer.Argument(help="Weights file, FILE:TASK for one of several tasks, or a name from `swinir zoo list`.")
    ],
    size: Annotated[
        str | None,
        typer.Option(
            metavar="HxW",
            help="Size of the low-quality image for which operations are counted, in pixels (default 256x256).",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Show the network, task, parameters and cost of a weights file, and the assumptions that were made.

    Of a file for several tasks, it lists them.
    """
    from swinir.weights.checkpoint import SeveralTasksError

    requested = _parse_size(size) if size else None
    try:
        facts = read_facts(file, requested)
    except SeveralTasksError as error:
        if error.asked is not None:
            raise
        facts = _read_tasks(file, error.joint)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    elif "tasks" in facts:
        _print_tasks(facts)
    else:
        _print(facts)


def _parse_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})", text)
    if match is None:
        raise ValueError(f"--size must be HEIGHTxWIDTH in pixels, got {text!r}; try --size 256x256")
    return int(match[1]), int(match[2])


def read_facts(file: str, requested: tuple[int, int] | None) -> dict[str, Any]:
    """Read a weights file and count the parameters and operations of its network."""
    from swinir.models.complexity import count_macs, count_macs_as_published
    from swinir.weights.checkpoint import find_checkpoint, guess_tasks, read_checkpoint, sha256

    path = find_checkpoint(file)
    checkpoint = read_checkpoint(file)
    network = checkpoint.network
    guesses = guess_tasks(network)
    size = requested or DEFAULT_SIZE
    if network.ape:
        size = (network.img_size, network.img_size)
        if requested not in (None, size):
            raise ValueError(f"{path}: this network takes only images of {size[0]}x{size[1]}; omit --size")
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


def _read_tasks(file: str, joint: "JointWeights") -> dict[str, Any]:
    """Describe a file for several tasks, and each of them."""
    from swinir.weights.checkpoint import sha256

    tasks = [
        {
            "name": name,
            "task": read_facts(f"{file}:{name}", None)["task"],
            "adapter": joint.facts[name].get("adapter"),
            "rank": max(
                (len(factor) for key, factor in joint.adapter(name).items() if key.endswith(".a")), default=None
            ),
            "step": joint.facts[name].get("step"),
        }
        for name in joint.facts
    ]
    sizes = [sum(tensor.numel() for tensor in part.values()) for part in (joint.body, joint.state())]
    return {
        "file": file,
        "bytes": Path(file).stat().st_size,
        "sha256": sha256(file),
        "parameters": sizes[1],
        "parameters_of_body": sizes[0],
        "tasks": tasks,
    }


def _print_tasks(facts: dict[str, Any]) -> None:
    rows = {
        "file": facts["file"],
        "bytes": f"{facts['bytes']:,}",
        "SHA-256": facts["sha256"],
        "parameters": f"{facts['parameters']:,}, of which {facts['parameters_of_body']:,} in the body",
    }
    print_table(TextTable((), list(rows.items())))
    typer.echo()
    titles = ("name", "task", "adapter", "rank", "steps")
    cells = [
        tuple("none" if task[key] is None else str(task[key]) for key in ("name", "task", "adapter", "rank", "step"))
        for task in facts["tasks"]
    ]
    print_table(TextTable(titles, cells, right=(3, 4)))
    typer.echo(f"\nname one of them as {facts['file']}:{facts['tasks'][0]['name']}")


def _in_paper(network: "NetworkConfig", tasks: list[str]) -> str | None:
    """The paper's parameter count and the reason for the difference, for the released networks that differ."""
    from dataclasses import replace

    from swinir.tasks import TASKS

    for task in tasks:
        released = TASKS[task].network_for(network.upscale, img_size=network.img_size)
        if replace(network, drop_path_rate=0.0, use_checkpoint=False) == released:
            count, why = PAPER_PARAMETERS.get((task, int(network.upscale)), (None, ""))
            return f"{count}, {why}" if count else None
    return None


def _print(facts: dict[str, Any]) -> None:
    height, width = facts["macs_size"]
    source = {"file": "stated by the file", "network": "inferred from its network"}.get(facts["task_told_by"])
    paper, macs = facts["parameters_in_paper"], facts["macs_as_in_paper"]
    rows = {
        "file": facts["file"],
        "bytes": f"{facts['bytes']:,}",
        "SHA-256": facts["sha256"],
        "weights under": facts["key"] or "the top level",
        "task": f"{facts['task']} ({source})" if source else ", ".join(facts["possible_tasks"]) or "unknown",
        "step": "not stated" if facts["step"] is None else f"{facts['step']:,}",
        "parameters": f"{facts['parameters']:,}" + (f" (the paper says {paper})" if paper else ""),
        "MACs": f"{facts['macs'] / 1e9:,.1f} G for a {height}x{width} image, attention included",
        "MACs as in paper": f"{macs / 1e9:,.1f} G, counted as in Table 3: 1024x720 output, some parts omitted"
        if macs
        else "",
        "training patch": f"{facts['training_patch']}x{facts['training_patch']}",
        "network": "",
    } | {f"  {name}": _option_text(value) for name, value in facts["network"].items()}
    shown = [(name, value) for name, value in rows.items() if value or name == "network"]
    print_table(TextTable((), shown))
    if facts["rules"]:
        typer.echo("assumed, because the file does not state it")
        for rule in facts["rules"]:
            typer.echo(f"  {rule}")


def _option_text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value) if value != "" else "none"
