"""Run the bundled models on degradations that they were not trained for.

    python scripts/study_degradations.py testsets/McMaster docs

prints two tables, with the means over the middles of a folder's images, and writes two sheets of crops, of
scikit-image's photographs. At an image's own size, what a model gains is compared with what it gains on a degradation
that it knows, at such a level that the input has the same PSNR. At x4, reductions are compared with MATLAB's bicubic.
"""

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import fmean
from typing import Annotated

import cv2
import numpy as np
import typer
from measure_photos import Restored, images_of, make_sheet, middle, restore, saved
from PIL import Image

import swinir
import swinir.cli.main  # before torch: waiting threads then behave as in `swinir`
from swinir.degradations.bsrgan import bsrgan
from swinir.degradations.jpeg import jpeg
from swinir.degradations.kernels import EllipticKernel
from swinir.degradations.photo import FilmGrain
from swinir.degradations.resize import imresize
from swinir.degradations.steps import Blur, GaussianNoise, Jpeg, Step, Subsample, to_bytes, to_floats
from swinir.image_io.color import luma
from swinir.image_io.image import read, to_rgb
from swinir.inference.arrays import restore_array
from swinir.inference.forward import Runnable, optimize_for
from swinir.inference.options import RunOptions
from swinir.metrics.full_reference import psnr
from swinir.report.text_table import TextTable

SEED = 1
SIDE = 144  # of the middles of images
SCALE = 4
NOISE, JPEG, PHOTO = "color_dn_noise0-55_tiny", "color_jpeg_car_jpeg5-95_tiny", "real_photo_x1_tiny"
BICUBIC, REAL = "lightweight_sr_x1-4_tiny", "real_sr_x4_tiny_PSNR"  # the first is for x4 at most
OPTIONS = RunOptions()

Degrade = Callable[[np.ndarray], np.ndarray]  # of (H, W, 3) uint8

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def stepwise(*steps: Step) -> Degrade:
    """Return a degradation of steps with a fixed seed."""

    def degrade(image: np.ndarray) -> np.ndarray:
        values, rng = to_floats(image), np.random.default_rng(SEED)
        for step in steps:
            values = step.apply(values, rng)
        return to_bytes(values)

    return degrade


def unchanged(image: np.ndarray) -> np.ndarray:
    """Return the image: the file's format degrades it."""
    return image


def filtered(kernel: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Filter with a kernel, scaled to a sum of 1."""
    return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101)


def motion(image: np.ndarray) -> np.ndarray:
    """Move the camera along a line of 13 pixels at 20 degrees."""
    return filtered(cv2.line(np.zeros((13, 13), np.float32), (0, 8), (12, 4), 1.0), image)


def defocus(radius: int, image: np.ndarray) -> np.ndarray:
    """Blur with a disk."""
    side = 2 * radius + 1
    return filtered(cv2.circle(np.zeros((side, side), np.float32), (radius, radius), radius, 1.0, cv2.FILLED), image)


def moire(image: np.ndarray) -> np.ndarray:
    """Photograph a screen of red, green and blue stripes, whose pixels are nearly as large as the sensor's."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    across = 1.06 * (x * np.cos(np.deg2rad(2)) + y * np.sin(np.deg2rad(2)))
    lit = (np.floor(3 * across)[..., None] % 3 == np.arange(3)).astype(np.float32)
    seen = image * (0.8 + 0.6 * cv2.GaussianBlur(lit, (0, 0), 0.7))
    return np.clip(seen, 0, 255).astype(np.uint8)


def halftone(image: np.ndarray) -> np.ndarray:
    """Print with dots of four pixels, turned by another angle for each ink, and scan."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    inks = []
    for channel, degrees in enumerate((15, 75, 0)):
        angle = np.deg2rad(degrees)
        u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        screen = 127.5 + 63.7 * (np.cos(u * np.pi / 2) + np.cos(v * np.pi / 2))
        inks.append(np.where(image[..., channel] > screen, 255.0, 0.0))
    return cv2.GaussianBlur(np.stack(inks, axis=2), (0, 0), 0.7).astype(np.uint8)


def noise_of(gt: np.ndarray, decibel: float) -> np.ndarray:
    """Add white noise, so that the PSNR is about as asked: what is clipped is made up for once."""
    level = 255 * 10 ** (-decibel / 20)
    noisy = stepwise(GaussianNoise("color", level))(gt)
    return stepwise(GaussianNoise("color", level * 10 ** ((psnr(noisy, gt) - decibel) / 20)))(gt)


def jpeg_of(gt: np.ndarray, decibel: float) -> np.ndarray:
    """Compress with the quality of 5 to 95 whose PSNR is nearest to the one asked."""
    return min((jpeg(gt, quality) for quality in range(5, 96)), key=lambda lq: abs(psnr(lq, gt) - decibel))


@dataclass(frozen=True)
class Unseen:
    """A degradation at an image's own size.

    Attributes:
        photograph: of scikit-image, for the sheet.
        file: format with its quality, as the name of a file.
        degrade: applied before the file is written.
        model: the one that is asked.
        known: of a ground truth and a PSNR in dB, the degradation that this model knows.
    """

    photograph: str
    file: str
    degrade: Degrade
    model: str = JPEG
    known: Callable[[np.ndarray, float], np.ndarray] = jpeg_of

    def lq(self, gt: np.ndarray, folder: Path) -> Path:
        """Write the degraded version of an (H, W, 3) uint8 image."""
        quality, _, suffix = self.file.rpartition(".")
        return saved(self.degrade(gt), folder / f"lq.{suffix}", int(quality or 90))


UNSEEN: Mapping[str, Unseen] = {
    "film grain 12, blurred by 0.8": Unseen(
        "astronaut", ".png", stepwise(FilmGrain(gray=True, level=12, sigma=0.8, fade=0.5)), NOISE, noise_of
    ),
    "moire of a screen": Unseen("astronaut", ".png", moire, NOISE, noise_of),
    "scanned halftone": Unseen("astronaut", ".png", halftone, NOISE, noise_of),
    "motion blur, 13 pixels": Unseen("coffee", ".png", motion, NOISE, noise_of),
    "defocus, radius 2": Unseen("coffee", ".png", partial(defocus, 2), NOISE, noise_of),
    "WebP 20": Unseen("chelsea", "20.webp", unchanged),
    "HEIC 20": Unseen("chelsea", "20.heic", unchanged),
    "JPEG 20 shifted by 4, then 60": Unseen("chelsea", "60.jpg", stepwise(Jpeg(20, shift=(4, 4)))),
}


def reduced_by(*steps: Step, then: Step | None = None) -> Degrade:
    """Return the steps, MATLAB's bicubic, and a last step."""

    def degrade(image: np.ndarray) -> np.ndarray:
        reduced = imresize(stepwise(*steps)(image), size=(image.shape[0] // SCALE, image.shape[1] // SCALE))
        return stepwise(then)(reduced) if then else reduced

    return degrade


def by_opencv(interpolation: int, image: np.ndarray) -> np.ndarray:
    """Reduce by OpenCV."""
    return cv2.resize(image, (image.shape[1] // SCALE, image.shape[0] // SCALE), interpolation=interpolation)


# By name; the first is the one that the model for bicubic images was trained on.
REDUCTIONS: Mapping[str, Degrade] = {
    "MATLAB's bicubic": reduced_by(),
    "box (area)": partial(by_opencv, cv2.INTER_AREA),
    "bicubic without antialiasing": partial(by_opencv, cv2.INTER_CUBIC),
    "Gaussian of 1.6, every 4th pixel": stepwise(Subsample(SCALE, 1.6)),
    "Gaussian of 3.2, every 4th pixel": stepwise(Subsample(SCALE, 3.2)),
    "Gaussian of 4 and 1 at 45 degrees, bicubic": reduced_by(Blur(EllipticKernel(25, (4, 1), math.pi / 4))),
    "motion of 13 pixels, bicubic": lambda image: reduced_by()(motion(image)),
    "defocus of radius 4, bicubic": lambda image: reduced_by()(defocus(4, image)),
    "bicubic, noise 5": reduced_by(then=GaussianNoise("color", 5)),
    "bicubic, JPEG 60": reduced_by(then=Jpeg(60)),
    "BSRGAN's": lambda image: to_bytes(bsrgan(to_floats(image), np.random.default_rng(SEED), scale=SCALE)),
}
SHOWN = ("MATLAB's bicubic", "bicubic without antialiasing", "Gaussian of 3.2, every 4th pixel", "bicubic, JPEG 60")


@cache
def load(name: str) -> Runnable:
    """Load a bundled model."""
    return optimize_for(swinir.load_model(name), OPTIONS)


def run(name: str, lq: np.ndarray) -> np.ndarray:
    """Restore an (H, W, 3) uint8 image by a bundled model."""
    return restore_array(load(name), lq, OPTIONS)


def measure_unseen(name: str, case: Unseen, gts: list[np.ndarray]) -> list[str]:
    """Name, mean PSNR of the input, gains of the models, and the number of images that `swinir restore` left alone."""
    columns: list[tuple[float, ...]] = []
    alone = 0
    for gt in gts:
        with tempfile.TemporaryDirectory() as folder:
            path = case.lq(gt, Path(folder))
            lq = to_rgb(read(path))
            chosen: Restored = restore(path)
        before = psnr(lq, gt)
        known = case.known(gt, before)
        gain = psnr(run(case.model, lq), gt) - before
        gain_known = psnr(run(case.model, known), gt) - psnr(known, gt)
        photo = psnr(run(PHOTO, lq), gt) - before
        columns.append((before, gain, gain_known, photo, psnr(chosen.image, gt) - before))
        alone += not chosen.models
    before, gain, gain_known, photo, default = (fmean(values) for values in zip(*columns, strict=True))
    cells = [f"{gain:+.2f}", f"{gain_known:+.2f}", f"{gain_known - gain:.2f}", f"{photo:+.2f}", f"{default:+.2f}"]
    return [name, f"{before:.2f}", case.model.removesuffix("_tiny"), *cells, f"{alone} of {len(gts)}"]


def decibel_y(restored: np.ndarray, gt: np.ndarray) -> float:
    """PSNR on Y without the border, as super-resolution is measured."""
    return psnr(luma(restored), luma(gt), crop_border=SCALE)


def measure_reductions(gts: list[np.ndarray]) -> list[list[str]]:
    """Mean PSNR on Y of bicubic enlargement and of both models, for each reduction."""
    rows: list[list[str]] = []
    reference = math.nan
    for name, degrade in REDUCTIONS.items():
        lqs = [degrade(gt) for gt in gts]
        bicubic = fmean(decibel_y(imresize(lq, SCALE), gt) for lq, gt in zip(lqs, gts, strict=True))
        first, real = (
            fmean(decibel_y(run(model, lq), gt) for lq, gt in zip(lqs, gts, strict=True)) for model in (BICUBIC, REAL)
        )
        reference = first if not rows else reference
        rows.append([name, f"{bicubic:.2f}", f"{first:.2f}", f"{reference - first:.2f}", f"{real:.2f}"])
    return rows


def photograph(name: str) -> np.ndarray:
    """Middle of a photograph of scikit-image."""
    import skimage.data

    return middle(getattr(skimage.data, name)(), SIDE)


def show_unseen() -> np.ndarray:
    """Make a sheet: input, the model that was asked, the model for photographs, clean."""
    rows = []
    for name, case in UNSEEN.items():
        gt = photograph(case.photograph)
        with tempfile.TemporaryDirectory() as folder:
            lq = to_rgb(read(case.lq(gt, Path(folder))))
        images = [lq, run(case.model, lq), run(PHOTO, lq), gt]
        decibels = ", ".join(f"{psnr(image, gt):.2f}" for image in images[:-1])
        rows.append((f"{name}: {decibels} dB", images))
    return make_sheet(rows)


def show_reductions() -> np.ndarray:
    """Make a sheet: bicubic enlargement, the model for bicubic images, that for real ones, clean."""
    gt, rows = photograph("chelsea"), []
    for name in SHOWN:
        lq = REDUCTIONS[name](gt)
        images = [imresize(lq, SCALE), run(BICUBIC, lq), run(REAL, lq), gt]
        decibels = ", ".join(f"{decibel_y(image, gt):.2f}" for image in images[:-1])
        rows.append((f"{name}: {decibels} dB", images))
    return make_sheet(rows)


@app.command()
def main(
    folder: Annotated[Path, typer.Argument(help="Folder of clean images.")],
    sheets: Annotated[Path, typer.Argument(help="Folder for the two sheets.")],
    images: Annotated[int, typer.Option("--images", min=1, help="Largest number of images.")] = 18,
) -> None:
    """Print the tables and write the sheets."""
    gts = [middle(to_rgb(read(path)), SIDE) for path in images_of(folder)[:images]]
    gts = [gt[: gt.shape[0] // SCALE * SCALE, : gt.shape[1] // SCALE * SCALE] for gt in gts]
    titles = ["degradation", "input, dB", "model", "gain", "known", "loss", "real_photo", "restore", "alone"]
    rows = [measure_unseen(name, case, gts) for name, case in UNSEEN.items()]
    typer.echo(TextTable(titles, rows, right=(1, 3, 4, 5, 6, 7)).markdown())
    titles = ["reduction", "bicubic, dB", "lightweight_sr_x1-4", "loss", "real_sr_x4"]
    typer.echo(TextTable(titles, measure_reductions(gts), right=(1, 2, 3, 4)).markdown())
    for name, sheet in (("unseen-degradations", show_unseen()), ("unseen-reductions", show_reductions())):
        Image.fromarray(sheet).save(sheets / f"{name}.webp", quality=80)


if __name__ == "__main__":
    app()
