"""Show degradations: `python scripts/show_degradations.py FOLDER sheet.png --kind bsrgan --scale 4`.

Each row shows a patch from the middle of an image and several degraded versions, enlarged by repeating pixels.
"""

from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from swinir.degradations.bsrgan import bsrgan
from swinir.degradations.bsrgan_plus import bsrgan_plus
from swinir.degradations.photo import photo
from swinir.degradations.realesrgan import realesrgan
from swinir.degradations.steps import GaussianNoise, Jpeg, MatlabResize, Step, to_bytes, to_floats
from swinir.image_io.image import list_images, read, to_rgb, write

GAP = 4
WHITE = 255

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


class Kind(StrEnum):
    """Degradation of the patches."""

    bsrgan = "bsrgan"
    bsrgan_plus = "bsrgan_plus"
    realesrgan = "realesrgan"
    photo = "photo"
    noise = "noise"
    jpeg = "jpeg"
    bicubic = "bicubic"


Degrade = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def make_degrade(kind: Kind, *, patch: int, scale: int, noise: float, quality: int) -> Degrade:
    """Return a function of the ground truth and a random generator; both images are (H, W, 3) float32 in [0, 1]."""
    steps: dict[Kind, Step] = {
        Kind.noise: GaussianNoise("color", noise),
        Kind.jpeg: Jpeg(quality),
        Kind.bicubic: MatlabResize((patch // scale, patch // scale)),
    }
    chains: dict[Kind, Callable[..., np.ndarray]] = {
        Kind.bsrgan: bsrgan,
        Kind.bsrgan_plus: bsrgan_plus,
        Kind.realesrgan: realesrgan,
    }
    if kind is Kind.photo:
        return photo
    return steps[kind].apply if kind in steps else partial(chains[kind], scale=scale)


def make_row(image: np.ndarray, degrade: Degrade, rng: np.random.Generator, *, patch: int, samples: int) -> np.ndarray:
    """Return the middle of an (H, W, 3) uint8 image and its degraded versions, side by side."""
    top, left = ((side - patch) // 2 for side in image.shape[:2])
    gt = image[top : top + patch, left : left + patch]
    cells = [gt]
    for _ in range(samples):
        lq = to_bytes(degrade(to_floats(gt), rng))
        factor = patch // lq.shape[0]
        cells.append(lq.repeat(factor, axis=0).repeat(factor, axis=1))
    gap = np.full((patch, GAP, 3), WHITE, np.uint8)
    return np.concatenate([part for cell in cells for part in (cell, gap)][:-1], axis=1)


@app.command()
def main(
    folder: Annotated[Path, typer.Argument(help="Folder of ground-truth images.")],
    output: Annotated[Path, typer.Argument(help="PNG to write.")],
    kind: Annotated[Kind, typer.Option("--kind", help="Degradation of the patches.")] = Kind.bsrgan,
    scale: Annotated[
        int, typer.Option("--scale", min=1, max=16, help="Scale factor; ignored by noise, jpeg and photo.")
    ] = 4,
    patch: Annotated[int, typer.Option("--patch", min=32, help="Side of the ground-truth patches.")] = 256,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Degraded versions of each image.")] = 4,
    images: Annotated[int, typer.Option("--images", min=1, help="Largest number of rows.")] = 5,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the random degradations.")] = 0,
    noise: Annotated[float, typer.Option("--noise", min=0, help="Noise level in units of 1/255.")] = 25.0,
    quality: Annotated[int, typer.Option("--quality", min=0, max=100, help="JPEG quality for --kind jpeg.")] = 40,
) -> None:
    """Write a contact sheet of ground-truth patches and degraded versions of them."""
    try:
        if patch % scale:
            fits = patch // scale * scale
            raise ValueError(f"--patch must be a multiple of the scale {scale}, got {patch}; try {fits}")
        if output.suffix.lower() != ".png" or not output.parent.is_dir():
            raise ValueError(f"{output}: the output must be a .png file in an existing folder")
        degrade = make_degrade(kind, patch=patch, scale=scale, noise=noise, quality=quality)
        rng = np.random.default_rng(seed)
        rows: list[np.ndarray] = []
        for path in list_images(folder):
            image = to_rgb(read(path))
            if min(image.shape[:2]) >= patch:
                rows.append(make_row(image, degrade, rng, patch=patch, samples=samples))
            if len(rows) == images:
                break
        if not rows:
            raise ValueError(f"{folder}: no image of at least {patch}x{patch}; pass a smaller --patch")
        gap = np.full((GAP, rows[0].shape[1], 3), WHITE, np.uint8)
        write(output, np.concatenate([part for row in rows for part in (row, gap)][:-1]))
    except (OSError, ValueError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    typer.echo(f"{output}: {len(rows)} images, {samples} degraded versions each")


if __name__ == "__main__":
    app()
