"""Examples for the web page, made of photographs that come with scikit-image."""

import io
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image

NOISE_LEVEL, JPEG_QUALITY = 25, 20


def write_examples(folder: Path) -> list[tuple[Path, float]]:
    """Write three photographs: with noise, compressed as JPEG, and at half size.

    Returns:
        The path of each, and the scale to restore it at.
    """
    folder.mkdir(parents=True, exist_ok=True)
    clean = np.asarray(_photograph("astronaut.png"))
    noisy = clean + np.random.default_rng(0).normal(0, NOISE_LEVEL, clean.shape)
    images = (
        ("astronaut_noise.png", Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8)), 1),
        ("chelsea_jpeg.jpg", _photograph("chelsea.png"), 1),
        ("coffee_small.png", _photograph("coffee.png").reduce(2), 2),
    )
    for name, image, _ in images:
        image.save(folder / name, quality=JPEG_QUALITY)
    return [(folder / name, scale) for name, _, scale in images]


def _photograph(name: str) -> Image.Image:
    data = resources.files("skimage").joinpath("data", name).read_bytes()
    return Image.open(io.BytesIO(data)).convert("RGB")
