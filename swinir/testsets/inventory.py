"""What stands under a folder of sets, by names alone."""

from dataclasses import dataclass
from pathlib import Path

from swinir.image_io.image import list_images
from swinir.testsets.pairs import find_lq
from swinir.testsets.sets import BenchmarkSet


@dataclass(frozen=True)
class Presence:
    """What there is of a set.

    Attributes:
        set: its row.
        folder: where its images are or would be.
        images: ground truths (or images, of a set without references).
        low_quality: low-quality images by scale, of the scales that have any or a folder.
    """

    set: BenchmarkSet
    folder: Path
    images: tuple[Path, ...]
    low_quality: dict[int, tuple[Path, ...]]

    @property
    def state(self) -> str:
        """ "missing", "present", or "incomplete (n of m)"; "too many (n of m)" if there are more than the set has."""
        found, all_ = len(self.images), self.set.images
        if found == all_:
            return "present"
        return "missing" if not found else f"{'incomplete' if found < all_ else 'too many'} ({found} of {all_})"

    @property
    def complete_scales(self) -> tuple[int, ...]:
        """Scales at which every ground truth that is there has its low-quality image."""
        return tuple(scale for scale, files in self.low_quality.items() if len(files) == len(self.images) > 0)


def take_stock(row: BenchmarkSet, root: Path) -> Presence:
    """Look for a set under a folder of sets.

    Raises:
        OSError: for a folder that cannot be listed.
    """
    folder = row.gt_folder(root)
    images = tuple(list_images(folder)) if folder.is_dir() else ()
    low_quality = {}
    for scale in row.scales:
        lq_folder = row.lq_folder(root, scale)
        if lq_folder.is_dir():
            partners = (find_lq(lq_folder, image.stem, scale) for image in images)
            low_quality[scale] = tuple(path for path in partners if path)
    return Presence(row, folder, images, low_quality)
