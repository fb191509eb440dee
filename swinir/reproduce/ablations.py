"""The studies of Figure 3 and Table 1: the option that each varies, its points, and the published results.

A study changes one option of a base configuration. A run is the base with these changes and a seed. Studies share
equal runs, above all the runs of the unchanged base.
"""

import functools
import importlib.resources
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swinir.train.config import TrainConfig

SCALES = ("full", "1h-gpu", "cpu")
MODELS = {"swinir": "SwinIR", "rcan": "RCAN"}
PUBLISHED_SETTING = (
    "base of 180 channels, 6 RSTBs of 6 STLs; 500,000 iterations of 32 patches of 64x64; 800 images (DIV2K); "
    "PSNR on Manga109, x2"
)
FLICKR2K = Path("datasets/Flickr2K/HR")  # further images, where a point needs more than DIV2K has
X = float | str
Changes = dict[str, Any]  # values by dotted keys of a configuration

# RCAN with about as many multiply-accumulates as the base network of the scale, as in the paper. The defaults are the
# published sizes.
RCAN: dict[str, Changes] = {
    "full": {"name": "rcan"},
    "1h-gpu": {"name": "rcan", "n_resgroups": 4, "n_resblocks": 9, "n_feats": 48},
    "cpu": {"name": "rcan", "n_resgroups": 2, "n_resblocks": 6, "n_feats": 16, "reduction": 4},
}


@dataclass(frozen=True)
class Study:
    """A panel of Figure 3, or Table 1.

    Attributes:
        name: name of the subcommand.
        title, axis: titles of the study and of its x axis.
        vary: changes of the base configuration for the point x; None for the convergence, whose points are the
            validations of one training.
        points: values of x for each scale; those of "full" are the published ones.
        rcan: the paper trained RCAN too.
        reference: point that the others are compared with; None compares neighbours.
    """

    name: str
    title: str
    axis: str
    vary: "Callable[[TrainConfig, X], Changes] | None"
    points: dict[str, tuple[X, ...]]
    rcan: bool = False
    reference: X | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """Networks to train, keys of `MODELS`."""
        return ("swinir", "rcan") if self.rcan else ("swinir",)

    @property
    def published(self) -> dict[str, list[tuple[X, float]]]:
        """Published pairs of x and PSNR in dB (Manga109, Y, x2), by model."""
        return {model: [(x, psnr) for x, psnr in rows] for model, rows in _published()[self.name].items()}


@functools.cache
def _published() -> dict[str, Any]:
    source = importlib.resources.files("swinir.reproduce") / "published" / "ablations.toml"
    return tomllib.loads(source.read_text(encoding="utf-8"))


def _channels(base: "TrainConfig", x: X) -> Changes:
    return {"network.embed_dim": x}


def _blocks(base: "TrainConfig", x: X) -> Changes:
    network = base.network_config()
    return {f"network.{name}": [getattr(network, name)[0]] * int(x) for name in ("depths", "num_heads")}


def _layers(base: "TrainConfig", x: X) -> Changes:
    return {"network.depths": [int(x)] * len(base.network_config().depths)}


def _patch(base: "TrainConfig", x: X) -> Changes:
    return {"data.patch": int(x)}


def _images(base: "TrainConfig", x: X) -> Changes:
    """Use x times as many images as the base; beyond a whole single folder, images of Flickr2K follow."""
    if base.data.images is None:
        raise ValueError(
            "figure3e needs data.images, which the base configuration does not set; add --set data.images=800"
        )
    folders = base.data.train
    if float(x) > 1 and len(folders) == 1:
        folders = (*folders, FLICKR2K)
    return {"data.images": round(float(x) * base.data.images), "data.train": folders}


def _connection(base: "TrainConfig", x: X) -> Changes:
    return {"network.resi_connection": x}


_SHARES = (0.25, 0.5, 1, 2, 3, 4, 4.3)
_PATCHES = (32, 40, 48, 56, 64, 72, 80)
_NUMBERS = (1, 2, 4, 6, 8, 10, 12)
_VARIANTS = ("none", "1x1", "1conv", "3conv")
_ROWS = (
    Study(
        "figure3a",
        "Figure 3 (a): channel number",
        "channels",
        _channels,
        {
            "full": (60, 90, 120, 150, 180, 210, 240),
            "1h-gpu": (18, 30, 42, 48, 60, 72, 78),
            "cpu": (12, 18, 24, 36),
        },
    ),
    Study(
        "figure3b",
        "Figure 3 (b): RSTB number",
        "RSTBs",
        _blocks,
        {"full": _NUMBERS, "1h-gpu": _NUMBERS, "cpu": (1, 2, 3, 4)},
    ),
    Study(
        "figure3c",
        "Figure 3 (c): STL number in an RSTB",
        "STLs",
        _layers,
        {"full": _NUMBERS, "1h-gpu": _NUMBERS, "cpu": (1, 2, 4)},
    ),
    Study(
        "figure3d",
        "Figure 3 (d): training patch size",
        "patch",
        _patch,
        {"full": _PATCHES, "1h-gpu": _PATCHES, "cpu": (8, 16, 24, 32)},
        rcan=True,
    ),
    Study(
        "figure3e",
        "Figure 3 (e): number of training images",
        "share",
        _images,
        {"full": _SHARES, "1h-gpu": _SHARES, "cpu": (0.01, 0.05, 0.25, 1)},
        rcan=True,
    ),
    Study("figure3f", "Figure 3 (f): convergence", "iterations", None, dict.fromkeys(SCALES, ()), rcan=True),
    Study(
        "table1",
        "Table 1: residual connection and convolution of the RSTB",
        "variant",
        _connection,
        dict.fromkeys(SCALES, _VARIANTS),
        reference="1conv",
    ),
)

STUDIES: dict[str, Study] = {row.name: row for row in _ROWS}


@dataclass(frozen=True)
class Point:
    """One point of a curve with one seed, and its training; x is None for a convergence."""

    model: str
    x: X | None
    seed: int
    config: "TrainConfig"


def plan_points(study: Study, scale: str, base: "TrainConfig", seeds: int) -> list[Point]:
    """List the points of a study, seed by seed; the name of a configuration is the name of its run.

    Runs of the unchanged base are validated during training, for panel (f); the others once, at the end.

    Raises:
        ValueError: for a base that does not end in a validation, and for a point without a valid network.
    """
    steps = base.schedule.iterations
    if steps % base.validate_every:
        raise ValueError(
            f"schedule.iterations must be a multiple of validate_every, got {steps} and {base.validate_every}"
        )
    return [
        Point(model, x, seed, _configuration(study, scale, base, model, x, seed))
        for seed in range(seeds)
        for model in study.models
        for x in (study.points[scale] or (None,))
    ]


def _configuration(study: Study, scale: str, base: "TrainConfig", model: str, x: X | None, seed: int) -> "TrainConfig":
    from swinir.train.config import varied

    start = varied(base, {"network": RCAN[scale]}) if model == "rcan" else base
    config, name = start, model
    if study.vary is not None and x is not None:
        changed = varied(start, study.vary(start, x))
        if not _equal(changed, start):
            name = f"{model}_{study.axis}{x}"
            config = varied(changed, {"validate_every": base.schedule.iterations})
    return varied(config, {"name": f"{name}_seed{seed}", "seed": seed})


def _equal(one: "TrainConfig", other: "TrainConfig") -> bool:
    """Compare two configurations; network options that are left out count as their defaults."""
    from swinir.train.config import varied

    same_network = one.network_config() == other.network_config()
    return same_network and varied(one, {"network": other.network}) == other


def runs(points: Sequence[Point]) -> "list[TrainConfig]":
    """Trainings of some points, each run once."""
    return list({point.config.name: point.config for point in points}.values())
