"""Plan of the measurements: weights, the cells of the tables that they belong to, and missing files.

find_weights -> Weights -> plan_cells -> Cell, Missing
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from swinir.image_io.image import list_images
from swinir.reproduce.published import Place, Table
from swinir.testsets import BENCHMARK_SETS, BenchmarkSet
from swinir.weights import zoo
from swinir.weights.checkpoint import SUFFIXES, guess_tasks, read_checkpoint

WHOLE_ZOO = ("released", "bundled")


@dataclass(frozen=True)
class Weights:
    """A weights file, and the cells that it is for.

    Attributes:
        name: short, unique name.
        path: the file.
        task: key of `swinir.tasks.TASKS`.
        level: scale, noise level or JPEG quality, or the first of a range; None if neither the name nor the network
            states it.
        data: training data according to the file name, or "".
        entry: entry of the zoo, if the file is one of its files.
        level_to: last level of a range; None for one level.
    """

    name: str
    path: Path
    task: str
    level: int | None
    data: str = ""
    entry: zoo.ZooEntry | None = None
    level_to: int | None = None

    def covers(self, level: int) -> bool:
        """Compare a level of a table with that of the file; a file of unknown level has all."""
        return self.level is None or self.level <= level <= (self.level_to or self.level)


@dataclass(frozen=True)
class Cell:
    """A cell of a table to measure: weights on a set.

    Attributes:
        data: training data of the published row to compare with.
        plus: measure with self-ensemble.
    """

    table: Table
    weights: Weights
    level: int
    data: str
    plus: bool
    set: BenchmarkSet

    @property
    def place(self) -> Place:
        """Place of the published figures to compare with."""
        return Place(self.data, self.level, self.set.name, self.plus)

    @property
    def is_sr(self) -> bool:
        """Super-resolution: low-quality images are read from files."""
        return zoo.TASK_IN_NAME[self.table.task][1] == "x"

    @property
    def level_text(self) -> str:
        """Level as text: x4, noise25 or jpeg40."""
        return self.table.level_text(self.level)

    @property
    def label(self) -> str:
        """Name of the weights, with the paper's + for self-ensemble."""
        return f"{self.weights.name}{'+' if self.plus else ''}"

    @property
    def title(self) -> str:
        """The cell in messages: weights, set and level."""
        return f"{self.label} on {self.set.name}, {self.level_text}"

    @property
    def file(self) -> Path:
        """File of the results, relative to the output folder."""
        return Path("cells", self.table.name, self.label, f"{self.set.name}_{self.level_text}.json")


@dataclass(frozen=True)
class Missing:
    """Missing weights or images, the command that gets them, and the number of cells that need them."""

    what: str
    remedy: str
    cells: int


@dataclass(frozen=True)
class CellPlan:
    """Cells that can be measured, missing files of the others, and the number `lacking` of these others."""

    cells: tuple[Cell, ...]
    missing: tuple[Missing, ...]
    lacking: int


@dataclass(frozen=True)
class Wanted:
    """Requested cells; no sets or levels mean all. `plus` repeats each cell with self-ensemble."""

    tables: tuple[Table, ...]
    sets: tuple[str, ...] = ()
    levels: tuple[int, ...] = ()
    plus: bool = False

    def __post_init__(self) -> None:
        known = dict.fromkeys(name for table in self.tables for name in table.sets)
        for name in self.sets:
            if name not in known:
                raise ValueError(f"no set {name!r} in {self._names}; choose from {', '.join(known)}")
        levels = sorted({level for table in self.tables for level in table.levels})
        for level in self.levels:
            if level not in levels:
                raise ValueError(f"no level {level} in {self._names}; choose from {', '.join(map(str, levels))}")

    @property
    def _names(self) -> str:
        return ", ".join(table.name for table in self.tables)


def find_weights(words: Sequence[str]) -> list[Weights | zoo.ZooEntry]:
    """Find weights by "released", "bundled", names in the zoo, files and folders; missing ones are entries of the zoo.

    Raises:
        FileNotFoundError: for a path where nothing is.
        ValueError: for an unknown name, a file that is no SwinIR model or fits no task, and two files of one name.
    """
    found: list[Weights | zoo.ZooEntry] = []
    for word in words:
        if word in WHOLE_ZOO:
            found += [_of_zoo(entry) for entry in (zoo.RELEASED if word == "released" else zoo.bundled())]
        elif Path(word).is_dir():
            files = sorted(p for p in Path(word).iterdir() if p.suffix in SUFFIXES and p.is_file())
            if not files:
                raise ValueError(f"no weights ({', '.join(SUFFIXES)}) in {word}")
            found += [_of_file(file) for file in files]
        elif Path(word).is_file():
            found.append(_of_file(Path(word)))
        elif Path(word).name != word:  # the path of a file, be it named like a model or not
            raise FileNotFoundError(
                f"no file or folder {word}; check the path, or give a name that `swinir zoo list` shows"
            )
        else:
            found.append(_of_zoo(zoo.find(word)))
    names = [weights.name for weights in found if isinstance(weights, Weights)]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"several weights have the name {', '.join(repeated)}; give each once, or rename a file")
    return found


def _of_zoo(entry: zoo.ZooEntry) -> Weights | zoo.ZooEntry:
    try:
        path = zoo.locate(entry.name)
    except FileNotFoundError:
        return entry
    return _named(entry.alias, path, entry.parts, entry)


def _named(name: str, path: Path, parts: zoo.WeightsName, entry: zoo.ZooEntry | None = None) -> Weights:
    return Weights(name, path, parts.task, parts.level, parts.data, entry, parts.level_to)


def _of_file(path: Path) -> Weights:
    """Task, level and data by the file name if it follows the released names, else by the network in the file."""
    try:
        parts = zoo.parse_name(path.name)
    except ValueError:
        checkpoint = read_checkpoint(path)
        tasks = [checkpoint.task] if checkpoint.task else guess_tasks(checkpoint.network)
        if not tasks:
            raise ValueError(f"{path}: its network fits none of the tasks; see `swinir info {path}`") from None
        is_sr = zoo.TASK_IN_NAME[tasks[0]][1] == "x"
        return Weights(path.stem, path, tasks[0], int(checkpoint.network.upscale) if is_sr else None)
    return _named(path.stem, path, parts)


def plan_cells(wanted: Wanted, weights: Sequence[Weights | zoo.ZooEntry], testsets: Path) -> CellPlan:
    """Plan the cells that the weights are for, table by table, the cells of one file next to each other.

    Weights of unknown level are measured at every level of their table.
    """
    cells: list[Cell] = []
    waiting: dict[tuple[str, str], int] = {}
    lacking = 0
    for one in weights:
        for cell in _cells(wanted, one):
            lacks = _lacks(cell, testsets)
            if isinstance(one, zoo.ZooEntry):
                lacks.insert(0, (f"weights {one.alias}", f"swinir zoo download {one.alias}"))
            if lacks:
                lacking += 1
            else:
                cells.append(cell)
            for lack in lacks:
                waiting[lack] = waiting.get(lack, 0) + 1
    order = {table: number for number, table in enumerate(wanted.tables)}
    cells.sort(key=lambda cell: (order[cell.table], cell.level, cell.weights.name))  # stable: sets keep their order
    return CellPlan(tuple(cells), tuple(Missing(*lack, number) for lack, number in waiting.items()), lacking)


def _cells(wanted: Wanted, one: Weights | zoo.ZooEntry) -> Iterator[Cell]:
    if isinstance(one, zoo.ZooEntry):
        one = _named(one.alias, Path(one.file), one.parts, one)
    for table in wanted.tables:
        if table.task != one.task:
            continue
        data = one.data if one.data in table.data else table.data[0]
        for level in table.levels:
            if not one.covers(level) or (wanted.levels and level not in wanted.levels):
                continue
            for name in table.sets:
                if not wanted.sets or name in wanted.sets:
                    for plus in (False, True)[: 1 + wanted.plus]:
                        yield Cell(table, one, level, data, plus, BENCHMARK_SETS[name])


def _lacks(cell: Cell, testsets: Path) -> list[tuple[str, str]]:
    """Missing images of a cell, and the command that makes them."""
    name, where = cell.set.name, "" if testsets == Path("testsets") else f" --testsets {testsets}"
    if not _has_images(cell.set.gt_folder(testsets)):
        return [(f"set {name} in {testsets}", f"swinir data prepare {name} FOLDER_OR_ARCHIVE{where}")]
    if cell.is_sr and not _has_images(cell.set.lq_folder(testsets, cell.level)):
        what = f"low-quality images of {name} at x{cell.level} in {testsets}"
        return [(what, f"swinir data prepare {name}{where}")]
    return []


def _has_images(folder: Path) -> bool:
    return folder.is_dir() and bool(list_images(folder))
