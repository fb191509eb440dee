"""The published tables: their cells, and every figure with its source. Imports no torch.

published/TABLE.csv, costs.csv, notes.toml -> Table, Figures, Cost, Note
"""

import csv
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, NamedTuple

from swinir.weights.zoo import TASK_IN_NAME

SOURCES = {
    "paper": "SwinIR: Image Restoration Using Swin Transformer, arXiv 2108.10257",
    "readme": "README of the released program",
    "mmagic": "mmagic, configs/swinir/README.md: the released weights, measured by others",
    "basicsr": "BasicSR, docs/HOWTOs.md: the released weights, measured by others",
}
PUBLISHED = ("paper", "readme")
THIRD_PARTY = ("mmagic", "basicsr")
METHOD = "SwinIR"
_COLUMNS = ("method", "data", "level", "plus", "source")


@dataclass(frozen=True)
class Table:
    """A table of published results.

    Attributes:
        name: name of the command, and of the file with the figures.
        title: heading, with the place of publication.
        task: key of `swinir.tasks.TASKS`.
        sets: names of benchmark sets, in the order of the columns.
        levels: scales, noise levels or JPEG qualities.
        data: training data of the released networks, one row of figures each; the first is the paper's main row.
        metrics: metrics of `swinir.evaluation`, in the order of a cell of the file.
        measure: description of the metrics, for headings.
    """

    name: str
    title: str
    task: str
    sets: tuple[str, ...]
    levels: tuple[int, ...]
    data: tuple[str, ...]
    metrics: tuple[str, ...]
    measure: str

    def level_text(self, level: int) -> str:
        """Level as in the names of weights: x4, noise25, jpeg40."""
        return f"{TASK_IN_NAME[self.task][1]}{level}"


class Place(NamedTuple):
    """Place of SwinIR's figures in a table: training data, level, set, and `plus` for self-ensemble."""

    data: str
    level: int
    set: str
    plus: bool


@dataclass(frozen=True)
class Figures:
    """A published cell: metrics of a method on a set, as `Table.metrics` names them. PSNR and PSNR-B in dB."""

    method: str
    data: str
    level: int
    plus: bool
    source: str
    set: str
    values: Mapping[str, float]

    @property
    def place(self) -> Place:
        """Place in the table."""
        return Place(self.data, self.level, self.set, self.plus)


@dataclass(frozen=True)
class Cost:
    """Parameters in thousands and multiply-adds in 1e9, from Table 3."""

    method: str
    level: int
    parameters_k: float
    macs_g: float


@dataclass(frozen=True)
class Note:
    """A remark on published figures; `values` are the correct figures of one cell, if they are known."""

    name: str
    table: str
    text: str
    where: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, float] = field(default_factory=dict)

    def holds(self, place: Place) -> bool:
        """Return true if the note applies to a place in its table."""
        return all(getattr(place, name) == value for name, value in self.where.items())


_SR_SETS = ("Set5", "Set14", "BSD100", "Urban100", "Manga109")
_ROWS = (
    Table(
        "table2",
        "Table 2: classical super-resolution",
        "classical_sr",
        _SR_SETS,
        (2, 3, 4),
        ("DIV2K", "DF2K"),
        ("psnr_y", "ssim_y"),
        "PSNR/SSIM on luma",
    ),
    Table(
        "table3",
        "Table 3: lightweight super-resolution",
        "lightweight_sr",
        _SR_SETS,
        (2, 3, 4),
        ("DIV2K",),
        ("psnr_y", "ssim_y"),
        "PSNR/SSIM on luma",
    ),
    Table(
        "table4",
        "Table 4: grayscale JPEG artifact removal",
        "jpeg_car",
        ("classic5", "LIVE1"),
        (10, 20, 30, 40),
        ("DFWB",),
        ("psnr", "ssim", "psnrb"),
        "PSNR/SSIM/PSNR-B",
    ),
    Table(
        "table5",
        "Table 5: grayscale denoising",
        "gray_dn",
        ("Set12", "BSD68", "Urban100"),
        (15, 25, 50),
        ("DFWB",),
        ("psnr",),
        "PSNR",
    ),
    Table(
        "table6",
        "Table 6: color denoising",
        "color_dn",
        ("CBSD68", "Kodak24", "McMaster", "Urban100"),
        (15, 25, 50),
        ("DFWB",),
        ("psnr",),
        "PSNR over red, green and blue",
    ),
    Table(
        "color_jpeg",
        "Released README: color JPEG artifact removal",
        "color_jpeg_car",
        ("LIVE1", "classic5"),
        (10, 20, 30, 40),
        ("DFWB",),
        ("psnr", "ssim", "psnrb"),
        "PSNR/SSIM/PSNR-B over red, green and blue",
    ),
    Table(
        "div2k",
        "Released README: classical super-resolution on DIV2K's validation images",
        "classical_sr",
        ("DIV2K-val",),
        (2, 3, 4),
        ("DIV2K", "DF2K"),
        ("psnr", "ssim", "psnr_y", "ssim_y"),
        "PSNR/SSIM over red, green and blue, PSNR/SSIM on luma",
    ),
)
TABLES: dict[str, Table] = {row.name: row for row in _ROWS}


def _file(name: str) -> Traversable:
    return resources.files("swinir.reproduce").joinpath("published", name)


def _lines(name: str) -> Iterator[dict[str, str]]:
    with _file(name).open(encoding="utf-8") as stream:
        yield from csv.DictReader(stream)


@cache
def figures(table: Table) -> tuple[Figures, ...]:
    """Read every figure of a table, published or by third parties.

    Raises:
        ValueError: for a set, source or level that the table does not have.
    """
    found = []
    for line in _lines(f"{table.name}.csv"):
        sets = line.keys() - set(_COLUMNS)
        if sets != set(table.sets) or int(line["level"]) not in table.levels or line["source"] not in SOURCES:
            raise ValueError(f"{table.name}.csv: a line that does not fit the table: {line}")
        found += [
            Figures(
                line["method"],
                line["data"],
                int(line["level"]),
                line["plus"] == "+",
                line["source"],
                name,
                _values(table, line[name]),
            )
            for name in table.sets
            if line[name]
        ]
    return tuple(found)


def _values(table: Table, cell: str) -> dict[str, float]:
    # Some cells have only the first metrics: PSNR alone (IPT), or no PSNR-B (mmagic).
    return dict(zip(table.metrics, map(float, cell.split("/")), strict=False))


def published(table: Table, place: Place) -> Figures | None:
    """Published figures of SwinIR at a place, or None."""
    return next(_swinir(table, place, PUBLISHED), None)


def third_party(table: Table, place: Place) -> tuple[Figures, ...]:
    """Figures that others measured with the released weights at a place."""
    return tuple(_swinir(table, place, THIRD_PARTY))


def _swinir(table: Table, place: Place, sources: tuple[str, ...]) -> Iterator[Figures]:
    return (row for row in figures(table) if (row.method, row.place) == (METHOD, place) and row.source in sources)


@cache
def costs() -> tuple[Cost, ...]:
    """Parameters and multiply-adds of Table 3."""
    return tuple(
        Cost(line["method"], int(line["level"]), float(line["parameters_k"]), float(line["macs_g"]))
        for line in _lines("costs.csv")
    )


@cache
def notes(table: Table) -> tuple[Note, ...]:
    """Notes on a table."""
    rows = tomllib.loads(_file("notes.toml").read_text(encoding="utf-8"))["note"]
    return tuple(
        Note(
            row["name"],
            row["table"],
            row["text"],
            {key: row[key] for key in ("data", "level", "set", "plus") if key in row},
            row.get("figures", {}),
        )
        for row in rows
        if row["table"] == table.name
    )
