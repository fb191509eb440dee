"""Photographs that come with scikit-image, cut small, and test sets made of them."""

import numpy as np
from skimage import data

from swinir.image_io.image import write
from swinir.testsets.conversions import GRAY_CONVERSIONS, MATLAB_GRAY
from swinir.testsets.pairs import lq_name, reduced
from swinir.testsets.sets import BENCHMARK_SETS, BenchmarkSet, KnownFile, known_files, pixel_hash

TRIO = BenchmarkSet("Trio", 3, scales=(2, 3), source="scikit-image", from_jpeg=True)
GRAY = BenchmarkSet("GrayTrio", 3, gray=True, source="scikit-image")


def photographs(height=121, width=146):
    """Three color photographs by name, (H, W, 3) uint8, with sides that are no multiples of 2 or 3."""
    whole = {"astronaut": data.astronaut(), "chelsea": data.chelsea(), "coffee": data.coffee()}
    return {name: np.ascontiguousarray(image[60 : 60 + height, 150 : 150 + width]) for name, image in whole.items()}


def gray_photographs():
    """The same photographs as BSD68 was made of its color originals."""
    return {name: GRAY_CONVERSIONS[MATLAB_GRAY](image) for name, image in photographs().items()}


def write_images(folder, pattern="{name}.png", images=None):
    """Write photographs below a folder, under names made by a pattern."""
    for name, image in (images or photographs()).items():
        path = folder / pattern.format(name=name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, image)
    return folder


def write_set(root, row=TRIO, images=None):
    """Write a complete and correct set, and return its folder."""
    images = images or photographs()
    folder = write_images(root / row.name / ("HR" if row.scales else ""), images=images)
    for scale in row.scales:
        for name, image in images.items():
            row.lq_folder(root, scale).mkdir(parents=True, exist_ok=True)
            write(row.lq_folder(root, scale) / lq_name(name, scale), reduced(image, scale))
    return folder.parent if row.scales else folder


def add_sets(monkeypatch, *rows):
    """Add sets to the benchmark sets."""
    for row in rows:
        monkeypatch.setitem(BENCHMARK_SETS, row.name, row)


def add_hashes(monkeypatch):
    """Add the pixels of TRIO and GRAY to the known files; hashes of files are not among them."""
    for row, images in ((TRIO, photographs()), (GRAY, gray_photographs())):
        files = [
            KnownFile(row.name, f"{'HR/' * bool(row.scales)}{name}.png", 0, "", *image.shape[1::-1], image.shape[2],
                      pixel_hash(image))
            for name, image in images.items()
        ]  # fmt: skip
        monkeypatch.setitem(known_files(), row.name, tuple(files))
