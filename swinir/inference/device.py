"""The choice of a device by its name."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def choose_device(name: str | None = None) -> "torch.device":
    """Return the device of that name, by default the GPU if there is one.

    Raises:
        ValueError: if it cannot be used, with the names of those that can.
    """
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    usable = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    usable += ["mps"] * torch.backends.mps.is_available()
    try:
        device = torch.device(name)
    except RuntimeError as error:  # whose message lists the devices of all machines
        raise ValueError(f"device {name!r} is unknown; choose {' or '.join(usable)}") from error
    try:
        torch.empty(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name} cannot be used: {reason}; choose {' or '.join(usable)}") from error
    return device
