"""RCAN, a CNN that the paper compares with, from the spandrel package (extra `baselines`), for training here."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class BaselineConfig:
    """The properties that `restore` needs of a network other than SwinIR.

    Attributes:
        window: images are extended to multiples of it.
        extra_window: extend images whose sides are multiples already by one window more, as the released program does.
    """

    name: str
    in_chans: int
    upscale: float
    options: dict[str, Any] = field(default_factory=dict)
    window: int = 1  # images of any size
    extra_window: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values for checkpoints."""
        return {"name": self.name, "in_chans": self.in_chans, "upscale": self.upscale, **self.options}


class ExternalNetwork(nn.Module):
    """A network other than SwinIR as `restore` takes it: (B, in_chans, H, W) to (B, in_chans, H*s, W*s)."""

    config: BaselineConfig


class RCAN(nn.Module):
    """RCAN (Zhang et al., ECCV 2018): (B, in_chans, H, W) in [0, 1] to (B, in_chans, H*upscale, W*upscale).

    Args:
        in_chans: 1 or 3.
        upscale: 2, 3, 4 or 8; 1 for tasks that keep the size.
        options: of spandrel's RCAN, such as n_resgroups, n_resblocks, n_feats; the published sizes by default.

    Raises:
        ImportError: without spandrel, naming the extra.
        ValueError: for an option that RCAN does not have.
    """

    def __init__(self, in_chans: int = 3, upscale: int = 2, **options: Any) -> None:
        super().__init__()
        try:
            import spandrel.architectures.RCAN
        except ImportError as error:
            raise ImportError(
                "RCAN comes with the spandrel package; install it with: pip install 'swinir-toolkit[baselines]'"
            ) from error
        theirs = spandrel.architectures.RCAN.RCAN
        known = sorted(inspect.signature(theirs).parameters.keys() - {"scale", "n_colors", "conv", "norm"})
        for name in options:
            if name not in known:
                raise ValueError(f"unknown RCAN option {name!r}; known options: {', '.join(known)}")
        self.config = BaselineConfig("rcan", in_chans, upscale, options)
        # RCAN subtracts a mean of RGB images.
        self.network = theirs(scale=upscale, n_colors=in_chans, norm=in_chans == 3, **options)
        for part in (self.network.sub_mean, self.network.add_mean):
            part.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        restored: Tensor = self.network(x.clone())  # it scales its input in place
        return restored

    def released_state(self) -> dict[str, Tensor]:
        """Get the weights under the names of spandrel and RCAN's own program."""
        return {name: tensor.detach().cpu() for name, tensor in self.network.state_dict().items()}

    def load_released_state(self, state: Mapping[str, Tensor]) -> None:
        """Copy weights with those names; a ValueError if they do not fit."""
        try:
            self.network.load_state_dict(dict(state))
        except RuntimeError as error:
            raise ValueError(f"not the weights of this RCAN: {' '.join(str(error).split())}") from error
