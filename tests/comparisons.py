"""A small Set5 for comparisons of networks."""

import numpy as np
from pictures import smooth

from swinir.degradations.resize import imresize
from swinir.image_io.image import write


def write_set5(root):
    """Lay out Set5 with three images, smooth but for a patch of noise, under `root`; returns `root`."""
    for i, (height, width) in enumerate(((96, 120), (104, 96), (100, 140))):
        gt = smooth(height, width, seed=i)
        gt[20:40, 20:50] = np.random.default_rng(i).integers(0, 256, (20, 30, 3))
        for folder, name, image in (("HR", f"{i}", gt), ("LR_bicubic/X2", f"{i}x2", imresize(gt, 0.5))):
            path = root / "Set5" / folder
            path.mkdir(parents=True, exist_ok=True)
            write(path / f"{name}.png", image)
    return root
