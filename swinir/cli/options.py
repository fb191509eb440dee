"""What options that several subcommands have mean."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def check_parent(file: Path | None) -> None:
    """A FileNotFoundError when a file to be written has no folder: before the work, not after it."""
    if file is not None and not file.absolute().parent.is_dir():
        raise FileNotFoundError(f"folder not found: {file.absolute().parent}; make it, or write {file.name} elsewhere")


def choose_device(name: str | None) -> "torch.device":
    """The device of that name, or the GPU if there is one; a ValueError if it cannot be used."""
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"--device {name} cannot be used: {str(error).splitlines()[0]}; try --device cpu") from error
    return device
