"""Prepare folders of images: `python scripts/prepare_dataset.py pairs GT LQ --scale 2` makes partners for testing."""

from pathlib import Path
from typing import Annotated

import typer

from swinir.degrade.resize import imresize
from swinir.image import ImageError, list_images, read, write

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback()
def prepare() -> None:
    """Prepare folders of images for testing."""


@app.command()
def pairs(
    gt: Annotated[Path, typer.Argument(help="Folder of ground-truth images.")],
    lq: Annotated[Path, typer.Argument(help="Folder for the low-quality ones, NAMEx{scale}.png.")],
    scale: Annotated[int, typer.Option("--scale", min=2, help="Reduction.")],
) -> None:
    """Reduce every image by MATLAB's bicubic, cropped to a multiple of the scale; files that are there stay."""
    try:
        images = list_images(gt)
    except OSError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    lq.mkdir(parents=True, exist_ok=True)
    made = failed = 0
    for path in images:
        target = lq / f"{path.stem}x{scale}.png"
        if target.exists():
            continue
        try:
            image = read(path)
            height, width = (side // scale * scale for side in image.shape[:2])
            write(target, imresize(image[:height, :width], 1 / scale))
            made += 1
        except (ImageError, ValueError) as error:
            typer.echo(f"{path}: {error}" if str(path) not in str(error) else str(error), err=True)
            failed += 1
    typer.echo(f"{made} made, {len(images) - made - failed} were there, {failed} failed")
    if failed or not images:
        raise typer.Exit(1 if images else 2)


if __name__ == "__main__":
    app()
