"""Images and small models for tests."""

import numpy as np
import torch

from swinir.image_io.picture import Picture
from swinir.image_io.writer import write_picture
from swinir.models.swinir import NetworkConfig, SwinIR
from swinir.weights.checkpoint import write_checkpoint

SMALL = {"embed_dim": 8, "depths": (1,), "num_heads": (2,), "window_size": 4, "img_size": 8}


def write_expert(path, **options):
    """Write a checkpoint of a small network with random weights; by default it enlarges color images by 2."""
    with torch.random.fork_rng():
        torch.manual_seed(len(str(options)))
        config = NetworkConfig(**SMALL | {"upsampler": "pixelshuffledirect", "upscale": 2} | options)
        write_checkpoint(path, SwinIR(config).state_dict(), config)
    return path


def smooth(height, width, channels=3, dtype=np.uint8, seed=0):
    """(H, W, C) waves over the whole range of an integer dtype."""
    phase = np.random.default_rng(seed).uniform(0, 6, channels)
    y, x = np.mgrid[:height, :width][..., None]
    waves = 0.5 + 0.5 * np.sin(x / 5 + y / 7 + phase)
    return (waves * np.iinfo(dtype).max).astype(dtype)


def to_tensor(image):
    """(H, W, C) float32 to (1, C, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]


def to_uint8(image):
    """(1, C, H, W) in [0, 1] to (H, W, C) uint8, rounded."""
    return image[0].permute(1, 2, 0).float().mul(255).round().to(torch.uint8).numpy()


def write(path, pixels, **options):
    """Write an image file."""
    write_picture(path, Picture(pixels, **options))
    return path


def write_folder(folder):
    """Write three images below a folder, one of them in a subfolder."""
    (folder / "below").mkdir(parents=True)
    write(folder / "a.png", smooth(20, 24))
    write(folder / "b.tif", smooth(20, 24, 1, np.uint16))
    write(folder / "below" / "c.jpg", smooth(20, 24))
    return folder
