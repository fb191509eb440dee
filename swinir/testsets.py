"""The benchmark sets of the paper as rows: what they hold, and where in a folder of sets their files are."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BenchmarkSet:
    """One set.

    Attributes:
        name: as the paper and folders call it.
        images: how many ground-truth images it has (low-quality ones, where it has no references).
        gray: whether the images have one channel.
        scales: super-resolution is measured at these; empty for sets of the other tasks.
        reference: whether there are ground-truth images.
    """

    name: str
    images: int
    gray: bool = False
    scales: tuple[int, ...] = ()
    reference: bool = True

    def gt_folder(self, root: Path) -> Path:
        """Where the ground-truth images are under a folder of sets: NAME/HR, or NAME itself where there is no HR."""
        folder = root / self.name / "HR"
        return folder if folder.is_dir() else root / self.name

    def lq_folder(self, root: Path, scale: int) -> Path:
        """Where the low-quality images of a scale belong."""
        return root / self.name / "LR_bicubic" / f"X{scale}"


_SR = (2, 3, 4)
_ROWS = (
    BenchmarkSet("Set5", 5, scales=(*_SR, 8)),
    BenchmarkSet("Set14", 14, scales=(*_SR, 8)),
    BenchmarkSet("BSD100", 100, scales=(*_SR, 8)),
    BenchmarkSet("Urban100", 100, scales=(*_SR, 8)),
    BenchmarkSet("Manga109", 109, scales=(*_SR, 8)),
    BenchmarkSet("DIV2K-val", 100, scales=_SR),
    BenchmarkSet("Set12", 12, gray=True),
    BenchmarkSet("BSD68", 68, gray=True),
    BenchmarkSet("CBSD68", 68),
    BenchmarkSet("Kodak24", 24),
    BenchmarkSet("McMaster", 18),
    BenchmarkSet("classic5", 5, gray=True),
    BenchmarkSet("LIVE1", 29),
    BenchmarkSet("RealSRSet+5images", 25, reference=False),
)

BENCHMARK_SETS: dict[str, BenchmarkSet] = {row.name: row for row in _ROWS}
