"""The paper's seven tasks and one of ours, a row each: network, input, metrics and names.

A difference between tasks is a field of its row; no other module asks for a task by name.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from swinir.models.swinir import NetworkConfig

NOISE_LEVELS = (15, 25, 50)
JPEG_QUALITIES = (10, 20, 30, 40)


@dataclass(frozen=True)
class TaskSpec:
    """One task.

    Attributes:
        name: as the released program's `--task` takes it.
        title: for tables and messages.
        purpose: of its models, for users who restore photographs with them; empty where the title says it.
        network: the released network of medium (or lightweight) size, at the first scale; for a task of ours, the
            paper's network of that size.
        large: the large variant, where one was released.
        scales: enlargements that models are trained for; (1,) for tasks that keep the size.
        degradation: by which the tester makes its input from a ground-truth image; None if low-quality images are
            files.
        training: degradation of training images.
        has_reference: True if the tester compares with a ground truth.
        gray: True if images are read, restored and written with one channel.
        crop_scale: True if metrics leave out a border of `scale` pixels.
        psnrb: True if PSNR-B is among the metrics.
        weights_key: entry of released checkpoints that holds the weights.
        folder: pattern of the result folder's name.
        in_file_name: the task's name in names of released files.
        served_by: other tasks whose models do the work of this one, too.
        in_paper: False for a task of this project, of which nothing was released.
    """

    name: str
    title: str
    network: NetworkConfig
    weights_key: Literal["params", "params_ema"]
    folder: str
    in_file_name: str
    training: Literal["bicubic", "bsrgan", "noise", "jpeg", "photo"]
    purpose: str = ""
    large: NetworkConfig | None = None
    scales: tuple[int, ...] = (1,)
    degradation: Literal["noise", "jpeg"] | None = None
    has_reference: bool = True
    gray: bool = False
    crop_scale: bool = False
    psnrb: bool = False
    served_by: tuple[str, ...] = ()
    in_paper: bool = True

    @property
    def any_scale(self) -> bool:
        """True if low-quality images are bicubic reductions, which exist for any scale."""
        return self.training == "bicubic"

    @property
    def levels(self) -> tuple[int, ...]:
        """The scales, noise levels or JPEG qualities that the paper trains one model each for."""
        return {"noise": NOISE_LEVELS, "jpeg": JPEG_QUALITIES, None: self.scales}[self.degradation]

    def crop_border(self, scale: float) -> int:
        """Return the number of pixels that metrics leave out at each side: the scale, rounded up."""
        return math.ceil(scale) if self.crop_scale else 0

    def check_scale(self, scale: float) -> None:
        """Raise a ValueError for a scale that no model of the task can have."""
        if scale not in self.scales and not (self.any_scale and 1 <= scale <= max(self.scales)):
            allowed = ", ".join(map(str, self.scales))
            between = ", and any between 1 and the last by a model of any scale" if self.any_scale else ""
            raise ValueError(
                f"{self.name} takes scale {allowed}{between}, got {scale:g}; pass --scale {self.scales[-1]}"
            )

    def network_for(self, scale: float = 1, *, img_size: int | None = None, large: bool = False) -> NetworkConfig:
        """Return the configuration of the released network at `scale`, trained on `img_size` low-quality pixels.

        Raises:
            ValueError: for a scale the task's network cannot have, or a large variant that does not exist.
        """
        base = self.large if large else self.network
        if base is None:
            raise ValueError(f"{self.name} has no large model; leave --large_model out")
        if scale not in self.scales:
            allowed = ", ".join(map(str, self.scales))
            raise ValueError(f"{self.name} takes scale {allowed}, got {scale:g}; pass --scale {self.scales[-1]}")
        return replace(base, upscale=scale, img_size=img_size or base.img_size)

    def result_folder(self, *, scale: float = 1, noise: int = 0, jpeg: int = 0, large: bool = False) -> str:
        """Return the name of the results folder, as in the released program."""
        return self.folder.format(name=self.name, scale=scale, noise=noise, jpeg=jpeg, large="_large" if large else "")


_MEDIUM = {"depths": (6,) * 6, "embed_dim": 180, "num_heads": (6,) * 6}
_LIGHT = {"depths": (6,) * 4, "embed_dim": 60, "num_heads": (6,) * 4}
_LARGE = {"depths": (6,) * 9, "embed_dim": 240, "num_heads": (8,) * 9, "resi_connection": "3conv"}
_JPEG = {"window_size": 7, "img_range": 255.0, "img_size": 126}


def _config(*parts: Mapping[str, object], **options: object) -> NetworkConfig:
    merged: dict[str, object] = {}
    for part in parts:
        merged |= part
    return NetworkConfig.from_dict(merged | options)


_ROWS = (
    TaskSpec(
        name="classical_sr",
        title="classical super-resolution",
        network=_config(_MEDIUM, upsampler="pixelshuffle", upscale=2, img_size=48),
        scales=(2, 3, 4, 8),
        crop_scale=True,
        weights_key="params",
        folder="swinir_{name}_x{scale}",
        in_file_name="classicalSR",
        training="bicubic",
    ),
    TaskSpec(
        name="lightweight_sr",
        title="lightweight super-resolution",
        network=_config(_LIGHT, upsampler="pixelshuffledirect", upscale=2, img_size=64),
        scales=(2, 3, 4),
        crop_scale=True,
        weights_key="params",
        folder="swinir_{name}_x{scale}",
        in_file_name="lightweightSR",
        training="bicubic",
    ),
    TaskSpec(
        name="real_sr",
        title="real-world super-resolution",
        purpose="for degraded photographs (blur, noise, compression); clean ones can look worse than by bicubic",
        network=_config(_MEDIUM, upsampler="nearest+conv", upscale=2, img_size=64),
        large=_config(_LARGE, upsampler="nearest+conv", upscale=4, img_size=64),
        scales=(2, 4),
        has_reference=False,
        weights_key="params_ema",
        folder="swinir_{name}_x{scale}{large}",
        in_file_name="realSR_BSRGAN",
        training="bsrgan",
    ),
    TaskSpec(
        name="gray_dn",
        title="grayscale denoising",
        network=_config(_MEDIUM, in_chans=1, img_size=128),
        degradation="noise",
        gray=True,
        weights_key="params",
        folder="swinir_{name}_noise{noise}",
        in_file_name="grayDN",
        served_by=("color_dn", "real_photo"),
        training="noise",
    ),
    TaskSpec(
        name="color_dn",
        title="color denoising",
        network=_config(_MEDIUM, img_size=128),
        degradation="noise",
        weights_key="params",
        folder="swinir_{name}_noise{noise}",
        in_file_name="colorDN",
        served_by=("real_photo",),
        training="noise",
    ),
    TaskSpec(
        name="jpeg_car",
        title="grayscale JPEG artifact removal",
        network=_config(_MEDIUM, _JPEG, in_chans=1),
        degradation="jpeg",
        gray=True,
        psnrb=True,
        weights_key="params",
        folder="swinir_{name}_jpeg{jpeg}",
        in_file_name="CAR",
        served_by=("color_jpeg_car", "real_photo"),
        training="jpeg",
    ),
    TaskSpec(
        name="color_jpeg_car",
        title="color JPEG artifact removal",
        network=_config(_MEDIUM, _JPEG),
        degradation="jpeg",
        psnrb=True,
        weights_key="params",
        folder="swinir_{name}_jpeg{jpeg}",
        in_file_name="colorCAR",
        served_by=("real_photo",),
        training="jpeg",
    ),
    TaskSpec(
        name="real_photo",
        title="real-photograph restoration",
        network=_config(_MEDIUM, img_size=128),
        weights_key="params",
        folder="swinir_{name}",
        in_file_name="realPhoto",
        training="photo",
        in_paper=False,
    ),
)

TASKS: dict[str, TaskSpec] = {row.name: row for row in _ROWS}


def get_task(name: str) -> TaskSpec:
    """Look up a task; a ValueError that lists the tasks for an unknown name."""
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}; choose one of {', '.join(TASKS)}")
    return TASKS[name]
