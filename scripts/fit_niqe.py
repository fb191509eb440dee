"""Fit NIQE's parameters to a folder of pristine photographs: `python scripts/fit_niqe.py FOLDER -o niqe.npz`."""

from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from swinir.image_io.image import list_images, read
from swinir.metrics.niqe import fit, save

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def main(
    folder: Annotated[Path, typer.Argument(help="Photographs without compression artifacts, blur or noise.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File for the parameters (.npz).")],
) -> None:
    """Fit the parameters to the sharp patches of all photographs."""
    pristine = fit(read(path) for path in tqdm(list_images(folder), unit="image", disable=None))
    save(output, pristine)
    print(f"{output}: {pristine.num_patches} patches of {pristine.num_images} photographs")


if __name__ == "__main__":
    app()
