"""The protocol of a benchmark: the task and its level, and the options that the network is run with."""

from dataclasses import dataclass, replace
from typing import Any

from swinir.inference.options import RunOptions
from swinir.inference.restore import align_tile
from swinir.inference.tiling import align_overlap
from swinir.models.swinir import NetworkConfig
from swinir.tasks import TaskSpec

RELEASED = RunOptions(tile_blend="mean")  # as the released program runs networks


@dataclass(frozen=True)
class Protocol:
    """The task of a benchmark, its level, and how the network is run; `noise` and `jpeg` serve their tasks only."""

    task: TaskSpec
    scale: float = 1
    noise: int = 15
    jpeg: int = 40
    options: RunOptions = RELEASED

    @property
    def level(self) -> float:
        """The scale, noise level or JPEG quality, as the task has it."""
        return {"noise": self.noise, "jpeg": self.jpeg, None: self.scale}[self.task.degradation]

    def facts(self) -> dict[str, Any]:
        """The settings as records of a run state them, precision apart; None where one does not apply."""
        made, options = self.task.degradation, self.options
        return {
            "task": self.task.name,
            "scale": self.scale,
            "noise": self.noise if made == "noise" else None,
            "jpeg": self.jpeg if made == "jpeg" else None,
            "tile": options.tile,
            "tile_overlap": options.tile_overlap if options.tile else None,
            "tile_blend": options.tile_blend if options.tile else None,
            "self_ensemble": options.self_ensemble,
        }


def check_network(network: NetworkConfig, protocol: Protocol, source: str, *, stated: str | None = None) -> None:
    """Refuse a network that does not fit the task and scale; a ValueError naming the difference.

    A network for color images also takes grey ones.

    Args:
        source: name of its file, for the message.
        stated: task that the file states. If its models serve the protocol's task, the scale and the channels decide.
            Otherwise the reconstruction tells tasks of super-resolution apart, and the image range denoising from
            JPEG artifact removal.
    """
    task, scale = protocol.task, protocol.scale
    wanted = task.network_for(scale if scale in task.scales else task.scales[0])
    told = stated in (task.name, *task.served_by)
    for field, what, asked, free in (
        ("upscale", "scale", scale, network.any_scale and task.any_scale and scale <= network.upscale),
        ("in_chans", "channels", wanted.in_chans, network.in_chans == 3),
        ("upsampler", "reconstruction", wanted.upsampler, told or scale == 1 or network.any_scale),
        ("img_range", "image range", wanted.img_range, told),
    ):
        seen = getattr(network, field)
        if seen != asked and not free:
            most = "at most " if network.any_scale and field == "upscale" else ""
            raise ValueError(
                f"{source} does not fit --task {task.name} --scale {scale:g}: "
                f"its {what} is {most}{seen!r}, the task needs {asked!r}; name another checkpoint, task or scale"
            )


def fit_tile(protocol: Protocol, window: int) -> Protocol:
    """Round tiles, and with `cut` their overlap, to whole windows of a network.

    Raises:
        ValueError: for a tile smaller than a window, and an overlap that leaves no stride.
    """
    options = protocol.options
    if options.tile is None or options.tile == "auto":
        return protocol
    tile, overlap = align_tile(options.tile, window), options.tile_overlap
    if options.tile_blend == "cut":
        overlap = align_overlap(overlap, tile, window)
    if not 0 <= overlap < tile:
        raise ValueError(
            f"--tile_overlap must be from 0 to below the tile of {tile}, got {overlap}; try --tile_overlap {tile // 8}"
        )
    return replace(protocol, options=replace(options, tile=tile, tile_overlap=overlap))
