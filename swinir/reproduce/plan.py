"""What is to be measured: weights, the cells they belong to, and what is missing for them.

find_weights -> Weights, plan -> Cell, Missing
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
    """A weights file, and where it belongs.

    Attributes:
        name: short, and told apart from the others.
        path: the file.
        task: a key of `swinir.tasks.TASKS`.
        level: scale, noise level or JPEG quality; None where neither name nor network tells it.
        data: training data as its name says, or "".
        entry: of the zoo, where it is one of its files.
    """

    name: str
    path: Path
    task: str
    level: int | None
    data: str = ""
    entry: zoo.ZooEntry | None = None


@dataclass(frozen=True)
class Cell:
    """One figure of a table to measure: weights on a set.

    Attributes:
        data: of the published row to compare with.
        plus: with self-ensemble.
    """

    table: Table
    weights: Weights
    level: int
    data: str
    plus: bool
    set: BenchmarkSet

    @property
    def place(self) -> Place:
        """In the table, of the figures to compare with."""
        return Place(self.data, self.level, self.set.name, self.plus)

    @property
    def is_sr(self) -> bool:
        """Whether low-quality images are files of their own."""
        return zoo.TASK_IN_NAME[self.table.task][1] == "x"

    @property
    def level_text(self) -> str:
        """x4, noise25 or jpeg40."""
        return self.table.level_text(self.level)

    @property
    def label(self) -> str:
        """Of the weights, with the paper's + for self-ensemble."""
        return f"{self.weights.name}{'+' if self.plus else ''}"

    @property
    def file(self) -> Path:
        """Where its results are kept, below the folder of all."""
        return Path("cells", self.table.name, self.label, f"{self.set.name}_{self.level_text}.json")


@dataclass(frozen=True)
class Missing:
    """What is not on this machine, the command that gets it, and how many cells wait for it."""

    what: str
    remedy: str
    cells: int


@dataclass(frozen=True)
class Plan:
    """The cells that can be measured, what the others lack (one may lack several things), and how many these are."""

    cells: tuple[Cell, ...]
    missing: tuple[Missing, ...]
    lacking: int


@dataclass(frozen=True)
class Wanted:
    """What is asked for; no sets or levels mean all. `plus` adds each cell with self-ensemble."""

    tables: tuple[Table, ...]
    sets: tuple[str, ...] = ()
    levels: tuple[int, ...] = ()
    plus: bool = False

    def __post_init__(self) -> None:
        known = dict.fromkeys(name for table in self.tables for name in table.sets)
        for name in self.sets:
            if name not in known:
                raise ValueError(f"no set {name!r} in {self._names}; choose of {', '.join(known)}")
        levels = sorted({level for table in self.tables for level in table.levels})
        for level in self.levels:
            if level not in levels:
                raise ValueError(f"no level {level} in {self._names}; choose of {', '.join(map(str, levels))}")

    @property
    def _names(self) -> str:
        return ", ".join(table.name for table in self.tables)


def find_weights(words: Sequence[str]) -> list[Weights | zoo.ZooEntry]:
    """Weights of "released", "bundled", names in the zoo, files and folders; an entry for each that is not here.

    Raises:
        ValueError: for an unknown name, a file that is no SwinIR or fits no task, and two of the same name.
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
        else:
            found.append(_of_zoo(zoo.find(word)))
    names = [weights.name for weights in found if isinstance(weights, Weights)]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"several weights are called {', '.join(repeated)}; name each once, or rename a file")
    return found


def _of_zoo(entry: zoo.ZooEntry) -> Weights | zoo.ZooEntry:
    try:
        path = zoo.locate(entry.name)
    except FileNotFoundError:
        return entry
    return Weights(entry.alias, path, entry.parts.task, entry.parts.level, entry.parts.data, entry)


def _of_file(path: Path) -> Weights:
    """By the name's grammar, else by the network in the file."""
    try:
        parts = zoo.parse_name(path.name)
    except ValueError:
        checkpoint = read_checkpoint(path)
        tasks = [checkpoint.task] if checkpoint.task else guess_tasks(checkpoint.network)
        if not tasks:
            raise ValueError(f"{path}: its network is that of none of the tasks; see `swinir info {path}`") from None
        is_sr = zoo.TASK_IN_NAME[tasks[0]][1] == "x"
        return Weights(path.stem, path, tasks[0], checkpoint.network.upscale if is_sr else None)
    return Weights(path.stem, path, parts.task, parts.level, parts.data)


def plan(wanted: Wanted, weights: Sequence[Weights | zoo.ZooEntry], testsets: Path) -> Plan:
    """The cells of the tables that the weights belong to, table by table, those of the same weights together.

    Weights whose level is not known are measured at every level of their table.
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
    cells.sort(key=lambda cell: (order[cell.table], cell.level, cell.weights.name))  # and the sets as they are
    return Plan(tuple(cells), tuple(Missing(*lack, number) for lack, number in waiting.items()), lacking)


def _cells(wanted: Wanted, one: Weights | zoo.ZooEntry) -> Iterator[Cell]:
    if isinstance(one, zoo.ZooEntry):
        one = Weights(one.alias, Path(one.file), one.parts.task, one.parts.level, one.parts.data, one)
    for table in wanted.tables:
        if table.task != one.task:
            continue
        data = one.data if one.data in table.data else table.data[0]
        for level in table.levels:
            if one.level not in (None, level) or (wanted.levels and level not in wanted.levels):
                continue
            for name in table.sets:
                if not wanted.sets or name in wanted.sets:
                    for plus in (False, True)[: 1 + wanted.plus]:
                        yield Cell(table, one, level, data, plus, BENCHMARK_SETS[name])


def _lacks(cell: Cell, testsets: Path) -> list[tuple[str, str]]:
    """What a cell lacks of its set, and the way to get it."""
    name, where = cell.set.name, "" if testsets == Path("testsets") else f" --testsets {testsets}"
    if not _has_images(cell.set.gt_folder(testsets)):
        return [(f"set {name} in {testsets}", f"swinir data prepare {name} FOLDER_OR_ARCHIVE{where}")]
    if cell.is_sr and not _has_images(cell.set.lq_folder(testsets, cell.level)):
        what = f"low-quality images of {name} at x{cell.level} in {testsets}"
        return [(what, f"swinir data prepare {name}{where}")]
    return []


def _has_images(folder: Path) -> bool:
    return folder.is_dir() and bool(list_images(folder))
