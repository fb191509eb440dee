"""Measure estimates and model selection: `python scripts/measure_choice.py estimates testsets/Set12 testsets/LIVE1`.

`estimates` degrades the images of folders, and compares noise, JPEG quality and selected models with the truth.
`noise` compares estimates of white noise, a camera's noise and film grain, also under JPEG, with the truth.
`gain` runs models on images degraded by several levels: from which estimate on they help, as
`swinir.photos.select_models` assumes.
"""

import io
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

import swinir.cli.main  # noqa: F401 - before torch: waiting threads then behave as in `swinir`
from swinir.degradations.camera import camera_noise, random_camera
from swinir.degradations.estimate import Findings, Noise, estimate_noise, sense
from swinir.degradations.estimate_input import LUMA
from swinir.degradations.jpeg import jpeg
from swinir.degradations.photo import FilmGrain
from swinir.image_io.image import list_images, read, to_gray, to_rgb
from swinir.metrics.full_reference import psnr
from swinir.photos.select_models import UNCOMPRESSED, Wish, select_models
from swinir.weights.zoo import present

NEAR = 3.0  # units of the level
NOISE_LEVELS = (15, 25, 50)
JPEG_QUALITIES = (10, 20, 30, 40, 60, 80)
SEED = 1

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


Tables = dict[int, list[int]]
Degrade = Callable[[np.ndarray], tuple[np.ndarray, Tables | None]]


@dataclass(frozen=True)
class Case:
    """A degradation, its true level, and the estimate to compare; NaN stands for no compression."""

    name: str
    apply: Degrade
    measured: Callable[[Findings], float]
    truth: float
    findings: Callable[[bool], Findings]  # of a perfect estimator, for grey (True) and colour images


def add_noise(image: np.ndarray, level: float) -> np.ndarray:
    """Add white Gaussian noise to an (H, W, C) uint8 image, rounded and clipped, as files hold it."""
    noise = np.random.default_rng(SEED).normal(0, level, image.shape)
    return (image + noise).round().clip(0, 255).astype(np.uint8)


def to_file(image: np.ndarray, quality: int) -> tuple[np.ndarray, Tables]:
    """Return the image as Pillow reads it back from a JPEG file, with the tables of the file."""
    stream = io.BytesIO()
    Image.fromarray(image.squeeze()).save(stream, "JPEG", quality=quality)
    file = Image.open(stream)
    return np.asarray(file).reshape(image.shape), getattr(file, "quantization")  # noqa: B009 - only JPEG files have it


def make_cases() -> list[Case]:
    """List the cases: clean, noise, JPEG by the tables of a file, JPEG by pixels alone."""

    def found(noise: float, quality: float | None) -> Callable[[bool], Findings]:
        return lambda gray: Findings(Noise(noise), quality, "file" if quality else None, gray)

    def noise(findings: Findings) -> float:
        return findings.noise_level

    def quality(findings: Findings) -> float:
        return findings.jpeg_quality or float("nan")

    def with_noise(level: int) -> Degrade:
        return lambda image: (add_noise(image, level), None)

    def by_pixels(level: int) -> Degrade:
        return lambda image: (jpeg(image, level), None)

    def by_file(level: int) -> Degrade:
        return lambda image: to_file(image, level)

    cases = [Case("clean", lambda image: (image, None), noise, 0, found(0, None))]
    cases += [Case(f"noise {n}", with_noise(n), noise, n, found(n, None)) for n in NOISE_LEVELS]
    for q in JPEG_QUALITIES:
        cases.append(Case(f"jpeg {q} file", by_file(q), quality, q, found(0, q)))
        cases.append(Case(f"jpeg {q} pixels", by_pixels(q), quality, q, found(0, q)))
    return cases


@app.command()
def estimates(folders: Annotated[list[Path], typer.Argument(help="Folders of clean images.")]) -> None:
    """Print, for each folder and degradation, how often the estimate is within 3 and the selected models are right."""
    experts = present()
    typer.echo(f"models: {', '.join(entry.alias for entry in experts)}")
    typer.echo(f"{'set':12} {'input':16} {'images':>6} {'near':>5} {'right':>5}   estimates: least, median, most")
    for folder in folders:
        images = list(map(read, paths(folder)))
        for case in make_cases():
            values, right = [], 0
            for image in images:
                findings = sense(*case.apply(image))
                values.append(case.measured(findings))
                plans = (select_models(f, Wish(), experts) for f in (findings, case.findings(findings.gray)))
                ours, ideal = ([step.model for step in plan.passes] for plan in plans)
                right += ours == ideal
            near = sum(abs(value - case.truth) <= NEAR for value in values)
            spread = ", ".join(f"{v:.1f}" for v in (min(values), statistics.median(values), max(values)))
            typer.echo(f"{folder.name:12} {case.name:16} {len(values):6} {near:5} {right:5}   {spread}")


def paths(folder: Path) -> list[Path]:
    """List the images in a folder."""
    found = list_images(folder)
    if not found:
        raise typer.BadParameter(f"no images in {folder}")
    return found


def middles(folder: Path, size: int, gray: bool) -> Iterator[np.ndarray]:
    """Yield the middle of each image, aligned to JPEG's grid."""
    for path in paths(folder):
        image = to_gray(read(path)) if gray else to_rgb(read(path))
        top, left = (max(0, side - size) // 16 * 8 for side in image.shape[:2])
        yield image[top : top + size, left : left + size]


def add_grain(image: np.ndarray, level: float) -> np.ndarray:
    """Add film grain, the same in all channels, to an (H, W, C) uint8 image; neighbouring pixels share it."""
    unit = to_rgb(image) / np.float32(255)
    grained = FilmGrain(gray=True, level=level, sigma=0.8).apply(unit, np.random.default_rng(SEED))
    return (grained[..., : image.shape[2]] * 255).round().astype(np.uint8)


def add_camera_noise(image: np.ndarray, level: float) -> np.ndarray:
    """Add a camera's noise, scaled to a standard deviation, to an (H, W, C) uint8 image."""
    rng, unit = np.random.default_rng(SEED), to_rgb(image) / np.float32(255)
    noise = camera_noise(unit, random_camera(rng, (1e-3, 1e-3)), rng, demosaiced=False) - unit
    noisy = unit + noise * (level / 255 / noise.std())
    return (noisy[..., : image.shape[2]] * 255).round().clip(0, 255).astype(np.uint8)


DEGRADATIONS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "noise": add_noise,
    "camera": add_camera_noise,
    "grain": add_grain,
    "jpeg": lambda image, quality: jpeg(image, int(quality)),
    "noise_jpeg75": lambda image, level: jpeg(add_noise(image, level), 75),
}


@app.command()
def noise(
    folder: Annotated[Path, typer.Argument(help="Folder of clean images.")],
    size: Annotated[int, typer.Option("--size", min=32, help="Side of the middles that are measured.")] = 384,
    images: Annotated[int, typer.Option("--images", min=1, help="Images at most.")] = 20,
) -> None:
    """Print, for each kind, level and JPEG quality, the noise that is left, and medians of estimates and errors."""
    clean = list(middles(folder, size, gray=False))[:images]
    typer.echo(f"{'noise':8} {'jpeg':>4} {'added':>5} {'left':>5} {'estimate':>8} {'error':>6} correlated")
    for kind, quality, level in product(("noise", "camera", "grain"), (100, 90, 70, 40), (3, 6, 12, 25)):
        left, found = [], []
        for gt in clean:
            noisy = DEGRADATIONS[kind](gt, level)
            if quality < UNCOMPRESSED:
                gt, noisy = jpeg(gt, quality), jpeg(noisy, quality)
            left.append(float(((noisy - gt.astype(float)) @ LUMA).std() / np.linalg.norm(LUMA)))
            found.append(estimate_noise(noisy))
        errors = [abs(f.level - truth) / truth for f, truth in zip(found, left, strict=True)]
        typer.echo(
            f"{kind:8} {quality:4} {level:5} {statistics.median(left):5.1f} "
            f"{statistics.median(f.level for f in found):8.1f} {statistics.median(errors):6.0%} "
            f"{sum(f.correlated for f in found)}/{len(found)}"
        )


@app.command()
def gain(
    folder: Annotated[Path, typer.Argument(help="Folder of clean images.")],
    names: Annotated[list[str], typer.Option("--model", help="Alias or file of weights; may repeat.")],
    levels: Annotated[list[float], typer.Option("--level", help="Noise level or JPEG quality; may repeat.")],
    degradation: Annotated[str, typer.Option("--degradation", help=f"One of {', '.join(DEGRADATIONS)}.")],
    gray: Annotated[bool, typer.Option("--gray", help="Of grey images.")] = False,
    size: Annotated[int, typer.Option("--size", min=16, help="Side of the middles that are restored.")] = 144,
    images: Annotated[int, typer.Option("--images", min=1, help="Images at most.")] = 10,
) -> None:
    """Print the median estimate and the change of PSNR in dB by each model, with the number of images that gain."""
    from swinir.inference.arrays import restore_array
    from swinir.models.optimized import OptimizedSwinIR, optimize
    from swinir.weights.checkpoint import load_model

    if degradation not in DEGRADATIONS:
        raise typer.BadParameter(f"--degradation must be one of {', '.join(DEGRADATIONS)}, got {degradation!r}")
    models = {name: optimize(load_model(name, device="cpu")) for name in names}
    if not gray and any(model.config.in_chans == 1 for model in models.values()):
        raise typer.BadParameter("models for grey images need --gray")
    clean = list(middles(folder, size, gray))[:images]

    def restored(model: OptimizedSwinIR, lq: np.ndarray) -> np.ndarray:
        if lq.shape[2] == model.config.in_chans:
            return restore_array(model, lq)
        return restore_array(model, lq.repeat(3, axis=2)).mean(axis=2, keepdims=True).round().astype(np.uint8)

    titles = "   ".join(f"{name[-24:]:>24}" for name in models)
    typer.echo(f"{'level':>6} {'noise':>6} {'jpeg':>6} {'input':>6}   {titles}")
    for level in levels:
        inputs = [DEGRADATIONS[degradation](gt, level) for gt in clean]
        found = [sense(lq) for lq in inputs]
        noise = statistics.median(f.noise_level for f in found)
        quality = statistics.median(f.jpeg_quality or 100 for f in found)
        before = [psnr(lq, gt) for lq, gt in zip(inputs, clean, strict=True)]
        cells = []
        for model in models.values():
            gains = [psnr(restored(model, lq), gt) - b for lq, gt, b in zip(inputs, clean, before, strict=True)]
            cells.append(f"{statistics.mean(gains):+16.2f} {sum(g > 0 for g in gains):3}/{len(gains):<3}")
        typer.echo(f"{level:6g} {noise:6.1f} {quality:6.0f} {statistics.mean(before):6.2f}   {'   '.join(cells)}")


if __name__ == "__main__":
    app()
