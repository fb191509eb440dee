"""The options of `swinir restore` and `swinir.restore_image`, once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from swinir.inference.options import RunOptions
from swinir.photos.restore_photo import Treatment
from swinir.photos.select_models import Wish


@dataclass(frozen=True)
class RestoreOptions:
    """The options that decide a restored image, with the defaults of `swinir restore`.

    Attributes:
        scale: factor of the output's size, above 0 and at most 64; None keeps the size, or is that of `model`.
        model: a checkpoint, or a name that `list_models` shows; None chooses models for each image.
        task: choose only among models of this task.
        noise: noise level to remove, instead of the estimate; 0 leaves noise alone.
        jpeg: JPEG quality to repair, instead of the estimate; 100 leaves compression alone.
        strength: share of the repair, 0 to 1, in passes that keep the size: input + strength * (restored - input).
        alpha: "model" passes transparency through the network, too; "bicubic" resizes it.
        tile: side of tiles in pixels; "auto" is by free memory, None is no tiles.
        tile_overlap: in pixels.
        precision: "fp32", "bf16", or "auto", which is bf16 on GPUs and CPUs that compute in it natively.
        self_ensemble: average over eight flips and rotations.
        compile: fuse layers by torch.compile.

    Raises:
        ValueError: for options that are out of range, or exclude each other.
    """

    scale: float | None = None
    model: str | Path | None = None
    task: str | None = None
    noise: float | None = None
    jpeg: float | None = None
    strength: float = Treatment.strength
    alpha: Literal["model", "bicubic"] = "model"
    tile: int | Literal["auto"] | None = "auto"
    tile_overlap: int = 64
    precision: str = "auto"
    self_ensemble: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        _ = self.treatment

    @property
    def treatment(self) -> Treatment:
        """The same for the functions that restore photographs."""
        scale = None if self.scale is None else float(self.scale)
        return Treatment(
            model=None if self.model is None else str(self.model),
            wish=Wish(max(1.0, scale or 1.0), self.task, self.noise, self.jpeg),
            outscale=scale,
            strength=float(self.strength),
            alpha=self.alpha,
            run=RunOptions(
                self.tile, self.tile_overlap, "cut", self.precision, self.self_ensemble, self.compile
            ),
        )  # fmt: skip
