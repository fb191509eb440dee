"""Bundle a trained model: store it with 16-bit weights in model_zoo/bundled and add it to index.toml there.

A former model of the same alias is removed. Files hold attention masks of the patch in their name, which nothing reads:
a file that is renamed to a smaller patch than that of its last training becomes smaller.

`python scripts/bundle_model.py runs/NAME/NAME.pth --result "Set5 37.2/0.957" --config configs/... --trained-on "..."`
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from swinir.atomic import atomic_path
from swinir.train.initialize import describe_weights
from swinir.weights import zoo
from swinir.weights.checkpoint import read_checkpoint, write_checkpoint
from swinir.weights.zoo import ZooEntry

MAX_PARAMETERS = 300_000
MAX_BYTES = 1_500_000


def bundle(
    weights: Annotated[Path, typer.Argument(help="Final weights of a run, named as the zoo's files are.")],
    result: Annotated[str, typer.Option("--result", help="Scores of the bundled file, by `swinir test`.")],
    config: Annotated[Path, typer.Option("--config", exists=True, help="Configuration of the training.")],
    trained_on: Annotated[str, typer.Option("--trained-on", help="Short description of the training images.")],
) -> None:
    """Bundle a trained model."""
    parts = zoo.parse_name(weights.name)
    checkpoint = read_checkpoint(weights)
    parameters = sum(tensor.numel() for tensor in checkpoint.state.values())
    if parameters > MAX_PARAMETERS:
        raise ValueError(f"{weights}: {parameters:,} parameters, bundled models have at most {MAX_PARAMETERS:,}")
    folder = zoo.bundled_folder()
    if folder is None:
        raise FileNotFoundError("model_zoo/bundled not found; run this in a source tree")
    former = [
        entry
        for entry in zoo.bundled()
        if replace(entry.parts, data=parts.data, patch=parts.patch, window=parts.window) == parts
    ]
    target = folder / weights.name
    write_checkpoint(
        target,
        checkpoint.state,
        replace(checkpoint.network, img_size=parts.patch),
        key=checkpoint.key,
        task=checkpoint.task,
        step=checkpoint.step,
        dtype=torch.float16,
    )
    if target.stat().st_size > MAX_BYTES:
        target.unlink()
        raise ValueError(f"{weights}: larger than {MAX_BYTES:,} bytes with 16-bit weights")
    row: dict[str, str | int] = describe_weights(target) | {
        "parameters": parameters,
        "params_key": checkpoint.key,
        "published": result,
        "config": config.as_posix(),
        "trained_on": trained_on,
    }
    _record(folder / "index.toml", row, former)
    for entry in former:
        if entry.file != target.name:
            (folder / entry.file).unlink(missing_ok=True)
    typer.echo(f"{target}: {row['bytes']:,} bytes, SHA-256 {row['sha256']}")


def _record(index: Path, row: dict[str, str | int], former: list[ZooEntry]) -> None:
    """Add a row to the index in place of former ones."""
    head, *tables = index.read_text(encoding="utf-8").split("[[weights]]\n")
    tables = [table for table in tables if not any(f'file = "{entry.file}"\n' in table for entry in former)]
    # JSON strings and numbers are valid TOML.
    tables.append("".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in row.items()))
    with atomic_path(index) as temporary:
        temporary.write_text(head.rstrip() + "".join(f"\n\n[[weights]]\n{table.strip()}" for table in tables) + "\n")


if __name__ == "__main__":
    typer.run(bundle)
