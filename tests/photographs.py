"""Photographs that come with scikit-image, cut small, and sets laid out of them."""

import numpy as np
from skimage import data

from swinir.image_io.image import write
from swinir.testsets.pairs import lq_name, reduced
from swinir.testsets.sets import BenchmarkSet, KnownFile, pixel_hash

TRIO = BenchmarkSet("Trio", 3, scales=(2, 3), source="scikit-image", from_jpeg=True)
GRAY = BenchmarkSet("GreyTrio", 3, gray=True, source="scikit-image")


def photographs(height=121, width=146):
    """Three colour photographs by name, (H, W, 3) uint8, whose sides are no multiples of 2 or 3."""
    whole = {"astronaut": data.astronaut(), "chelsea": data.chelsea(), "coffee": data.coffee()}
    return {name: np.ascontiguousarray(image[60 : 60 + height, 150 : 150 + width]) for name, image in whole.items()}


def write_set(root, row=TRIO, pictures=None):
    """The set laid out whole and right; its folder."""
    pictures = pictures or photographs()
    folder = root / row.name
    gt_folder = folder / "HR" if row.scales else folder
    gt_folder.mkdir(parents=True)
    for name, image in pictures.items():
        write(gt_folder / f"{name}.png", image)
    for scale in row.scales:
        row.lq_folder(root, scale).mkdir(parents=True)
        for name, image in pictures.items():
            write(row.lq_folder(root, scale) / lq_name(name, scale), reduced(image, scale))
    return folder


def known(row, pictures):
    """The rows of `files.csv` that a set of these pictures would have; hashes of files are not among them."""
    prefix = "HR/" if row.scales else ""
    return tuple(
        KnownFile(
            row.name, f"{prefix}{name}.png", 0, "", image.shape[1], image.shape[0], image.shape[2], pixel_hash(image)
        )
        for name, image in pictures.items()
    )
