"""Measure and show the restoration of photographs: `python scripts/measure_photos.py pairs CC15/noisy CC15/clean`.

Everything goes through `swinir.restore_image` with nothing said, as in `swinir restore photo.jpg`.

`pairs` compares restored photographs with clean ones, and with OpenCV's non-local means.
`textures` restores clean, textured photographs, which should be left alone, and slightly degraded ones.
`examples` writes photographs of scikit-image that are degraded.
`gallery` puts crops of photographs and of their restored versions side by side.
"""

import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from PIL import Image, ImageDraw, ImageFont

import swinir
import swinir.cli.main  # before torch: waiting threads then behave as in `swinir`
from swinir.degradations.camera import Camera
from swinir.degradations.photo import FilmGrain, PhotoNoise
from swinir.degradations.steps import GaussianNoise, Step, to_bytes, to_floats
from swinir.image_io.color import luma
from swinir.image_io.image import list_images, read, to_rgb
from swinir.metrics.full_reference import psnr

SEED = 1
EXAMPLE_SIDE = 256
TOLERANCE = 0.1  # dB that a slightly degraded photograph may lose
GAP, LABEL = 4, 20  # pixels of the sheet

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@dataclass(frozen=True)
class Restored:
    """A restored image, (H, W, 3) uint8, and the names of the models; none for one that is left alone."""

    image: np.ndarray
    models: tuple[str, ...]

    @property
    def told(self) -> str:
        """Short names of the models."""
        return " ".join(name.removesuffix(".pth").replace("_SwinIR-T", "") for name in self.models) or "left alone"


def restore(image: Path | np.ndarray) -> Restored:
    """Restore a file or an (H, W, 3) uint8 array as `swinir restore` does with nothing said."""
    models = swinir.plan_image(image).models
    if not models:
        return Restored(to_rgb(read(image)) if isinstance(image, Path) else image, models)
    restored = swinir.restore_image(image)
    return Restored(np.asarray(restored.convert("RGB") if isinstance(restored, Image.Image) else restored), models)


def partner(path: Path, folder: Path) -> Path:
    """Return the image of a folder with the same name, whatever its suffix."""
    found = [other for other in list_images(folder) if other.stem == path.stem]
    if len(found) != 1:
        raise typer.BadParameter(f"{folder} must hold one image named {path.stem}, found {len(found)}")
    return found[0]


def images_of(folder: Path) -> list[Path]:
    """List the images of a folder, of which there must be one."""
    paths = list_images(folder) if folder.is_dir() else []
    if not paths:
        raise typer.BadParameter(f"no images in {folder}")
    return paths


@app.command()
def pairs(
    noisy: Annotated[Path, typer.Argument(help="Folder of noisy photographs.")],
    clean: Annotated[Path, typer.Argument(help="Folder of clean ones with the same names.")],
    strengths: Annotated[
        list[float], typer.Option("--means", help="Filter strength of non-local means to compare with; may repeat.")
    ] = [],  # noqa: B006 - typer's way to say that an option may be absent
) -> None:
    """Print PSNR over RGB before and after, for each photograph and in the mean."""
    rows, means = [], {strength: list[float]() for strength in strengths}
    typer.echo(f"{'photograph':32} {'before':>7} {'after':>7}   models")
    for path in images_of(noisy):
        lq, gt = to_rgb(read(path)), to_rgb(read(partner(path, clean)))
        restored = restore(path)
        rows.append((psnr(lq, gt), psnr(restored.image, gt)))
        typer.echo(f"{path.name[:32]:32} {rows[-1][0]:7.2f} {rows[-1][1]:7.2f}   {restored.told}")
        for strength, values in means.items():
            bgr = cv2.fastNlMeansDenoisingColored(lq[..., ::-1].copy(), None, strength, strength)
            values.append(psnr(bgr[..., ::-1], gt))
    before, after = (statistics.mean(values) for values in zip(*rows, strict=True))
    typer.echo(f"{'mean':32} {before:7.2f} {after:7.2f}")
    for strength, values in means.items():
        typer.echo(f"{f'non-local means, strength {strength:g}':32} {'':7} {statistics.mean(values):7.2f}")


def texture(image: np.ndarray) -> float:
    """Return the mean magnitude of the Laplacian of an (H, W, 3) uint8 image's luma."""
    return float(np.abs(cv2.Laplacian(luma(image).astype(np.float32), cv2.CV_32F)).mean())


def middle(image: np.ndarray, side: int) -> np.ndarray:
    """Cut the middle of an image, at most `side` high and wide."""
    top, left = (max(0, length - side) // 2 for length in image.shape[:2])
    return np.ascontiguousarray(image[top : top + side, left : left + side])


def saved(image: np.ndarray, path: Path, quality: int = 90) -> Path:
    """Save an (H, W, 3) uint8 image in the format of the file's name."""
    if path.suffix == ".heic":
        import pillow_heif  # the extra `heic`

        pillow_heif.register_heif_opener()
    Image.fromarray(image).save(path, quality=quality)
    return path


@app.command()
def textures(
    folders: Annotated[list[Path], typer.Argument(help="Folders of clean photographs.")],
    images: Annotated[int, typer.Option("--images", min=1, help="Number of photographs, those of most texture.")] = 50,
    side: Annotated[int, typer.Option("--side", min=64, help="Largest side of the middles that are restored.")] = 320,
) -> None:
    """Print the change of PSNR in dB, for photographs with noise of level 3 and as JPEG 90, and which are left alone.

    Clean photographs have no reference but themselves: the PSNR of the output against the input is printed.
    """
    chosen = [(path, middle(to_rgb(read(path)), side)) for folder in folders for path in images_of(folder)]
    chosen = sorted(chosen, key=lambda item: texture(item[1]), reverse=True)[:images]
    alone, worst = 0, {"noise 3": 0.0, "JPEG 90": 0.0}
    typer.echo(f"{'photograph':40} {'texture':>7} {'clean':>10} {'noise 3':>10} {'JPEG 90':>10}")
    for path, gt in chosen:
        output = restore(gt)
        alone += not output.models
        cells = [f"{psnr(output.image, gt):7.2f} dB" if output.models else "alone"]
        noise = np.random.default_rng(SEED).normal(0, 3, gt.shape)
        with tempfile.TemporaryDirectory() as folder:
            file = saved(gt, Path(folder) / "q90.jpg")
            inputs: dict[str, tuple[Path | np.ndarray, np.ndarray]] = {
                "JPEG 90": (file, to_rgb(read(file))),
                "noise 3": ((noisy := (gt + noise).round().clip(0, 255).astype(np.uint8)), noisy),
            }
            for name in worst:
                given, lq = inputs[name]
                output = restore(given)
                gain = psnr(output.image, gt) - psnr(lq, gt) if output.models else 0.0
                worst[name] = min(worst[name], gain)
                cells.append(f"{gain:+7.2f} dB" if output.models else "alone")
        typer.echo(f"{path.name[:40]:40} {texture(gt):7.1f} " + " ".join(f"{cell:>10}" for cell in cells))
    typer.echo(f"{alone} of {len(chosen)} clean photographs left alone")
    for name, change in worst.items():
        verdict = "at most" if change >= -TOLERANCE else "MORE THAN"
        typer.echo(f"{name}: largest loss {abs(change):.2f} dB, {verdict} {TOLERANCE}")


def _step(step: Step) -> Callable[[np.ndarray], np.ndarray]:
    return lambda image: to_bytes(step.apply(to_floats(image), np.random.default_rng(SEED)))


def _noise(image: np.ndarray) -> np.ndarray:
    return _step(GaussianNoise("color", 15))(image)


def _camera(image: np.ndarray) -> np.ndarray:
    camera = Camera(shot=6e-4, read=2e-6, demosaicing="edge_aware", tone_curve=True)
    return _step(PhotoNoise(camera, False, image.shape[:2], luma_sigma=0.5, chroma_sigma=1.2))(image)


# By name: photograph of scikit-image, format with its quality, and degradation.
EXAMPLES: dict[str, tuple[str, str, Callable[[np.ndarray], np.ndarray]]] = {
    "1_camera_noise": ("chelsea", ".png", _camera),
    "2_film_grain_12": ("astronaut", ".png", _step(FilmGrain(gray=True, level=12, sigma=0.8, fade=0.5))),
    "3_white_noise_25": ("coffee", ".png", _step(GaussianNoise("color", 25))),
    "4_noise_15_in_jpeg_40": ("chelsea", "40.jpg", _noise),
    "5_jpeg_10": ("rocket", "10.jpg", lambda image: image),
}


@app.command()
def examples(
    output: Annotated[Path, typer.Argument(help="Folder for a folder of images and one of clean ones.")],
) -> None:
    """Write parts of scikit-image's photographs, degraded as models are trained for."""
    import skimage.data

    for part in ("examples", "examples_clean"):
        (output / part).mkdir(parents=True, exist_ok=True)
    for name, (photograph, kind, degrade) in EXAMPLES.items():
        clean = middle(getattr(skimage.data, photograph)(), EXAMPLE_SIDE)
        quality, _, suffix = kind.rpartition(".")
        saved(degrade(clean), output / "examples" / f"{name}.{suffix}", int(quality or 90))
        saved(clean, output / "examples_clean" / f"{name}.png")
    typer.echo(f"{output / 'examples'}: {len(EXAMPLES)} images")


def parse_place(text: str) -> tuple[int, int]:
    """Parse "X,Y"."""
    try:
        x, y = (int(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"--at must be X,Y, got {text!r}") from error
    return x, y


def make_sheet(rows: Sequence[tuple[str, Sequence[np.ndarray]]]) -> np.ndarray:
    """Stack rows of equally large (side, side, 3) crops, with a label above each row."""
    side, columns = len(rows[0][1][0]), len(rows[0][1])
    sheet = Image.new("RGB", (columns * (side + GAP) - GAP, len(rows) * (side + LABEL)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for number, (label, crops) in enumerate(rows):
        top = number * (side + LABEL)
        draw.text((2, top + 2), label, fill="black", font=font)
        for column, crop in enumerate(crops):
            sheet.paste(Image.fromarray(crop), (column * (side + GAP), top + LABEL))
    return np.asarray(sheet)


@app.command()
def gallery(
    output: Annotated[Path, typer.Argument(help="WebP or PNG file to write.")],
    files: Annotated[list[Path], typer.Argument(help="Photographs.")],
    places: Annotated[
        list[str], typer.Option("--at", help="Corner X,Y of the crop, once for each photograph; else the middle.")
    ] = [],  # noqa: B006
    clean: Annotated[Path | None, typer.Option("--clean", help="Folder of clean ones with the same names.")] = None,
    side: Annotated[int, typer.Option("--side", min=32, help="Side of the crops.")] = 200,
    quality: Annotated[int, typer.Option("--quality", min=1, max=100, help="Of a WebP file.")] = 90,
) -> None:
    """Write a sheet of crops at 100 %: the photograph, the restored one, and the clean one where there is one."""
    if places and len(places) != len(files):
        raise typer.BadParameter(f"--at must be given for each of the {len(files)} photographs, got {len(places)}")
    rows = []
    for number, path in enumerate(files):
        restored = restore(path)
        images, label = [to_rgb(read(path)), restored.image], f"{path.name}: {restored.told}"
        if clean is not None:
            gt = to_rgb(read(partner(path, clean)))
            label += f", {psnr(images[0], gt):.2f} to {psnr(images[1], gt):.2f} dB"
            images.append(gt)
        height, width = images[0].shape[:2]
        if min(height, width) < side:
            raise typer.BadParameter(f"{path} is {width}x{height}, smaller than the crop of {side}; pass --side")
        x, y = parse_place(places[number]) if places else ((width - side) // 2, (height - side) // 2)
        x, y = min(max(x, 0), width - side), min(max(y, 0), height - side)
        rows.append((label, [np.ascontiguousarray(image[y : y + side, x : x + side]) for image in images]))
        typer.echo(label)
    Image.fromarray(make_sheet(rows)).save(output, quality=quality)
    typer.echo(f"{output}: {len(rows)} photographs, {output.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    app()
