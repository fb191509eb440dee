"""Collection of what a report takes to a machine without network: `bash scripts/gpu_report.sh --pack IMAGES SET5`.

The folder gpu_carry/ gets wheels of packages that such a machine lacks, Set5, the state of an earlier training, and as
many training images as fit, always the same ones first. Git ignores it.
"""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

ROOT = Path(__file__).parents[2]
CARRIED = ROOT / "gpu_carry"
LIMIT = 64 * 2**20  # bytes that travel, the project among them
SPARE = 2**20
PACKAGES = (
    *("pydantic", "pydantic_core", "annotated-types", "typing-inspection", "typing-extensions"),
    *("spandrel", "pyvips-binary", "cffi", "pycparser"),
)
SOURCES = ("pyvips",)  # packages without wheels, in Python alone
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def size(folder: Path) -> int:
    """Count the bytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def tree_size() -> int:
    """Count the bytes of the project's files, without those that Git ignores."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return sum(path.stat().st_size for name in set(names) - {""} if (path := ROOT / name).is_file())


def fitting(images: list[Path], room: int) -> list[Path]:
    """Choose images by the hashes of their names, so that more room adds images and takes none away."""
    chosen = []
    for path in sorted(images, key=lambda path: hashlib.sha256(path.name.encode()).digest()):
        room -= path.stat().st_size
        if room < 0:
            break
        chosen.append(path)
    return chosen


def download(folder: Path, python: str) -> None:
    """Download and build the wheels, in the versions that are installed here.

    Raises:
        ValueError: when a wheel that was built here runs only here.
        CalledProcessError: when pip fails.
    """

    def pip(action: str, names: Sequence[str], *options: str) -> None:
        command = [sys.executable, "-m", "pip", action, "--quiet", "--disable-pip-version-check", "--no-deps", *options]
        subprocess.run([*command, *(f"{name}=={version(name)}" for name in names)], check=True)

    pip("wheel", SOURCES, "--wheel-dir", str(folder))
    if own := [path.name for path in folder.iterdir() if not path.name.endswith("-none-any.whl")]:
        raise ValueError(f"{own[0]} was built for this machine alone; install {SOURCES[0]} without a compiler")
    options = ["--only-binary=:all:", "--implementation", "cp", "--python-version", python, "--dest", str(folder)]
    pip("download", PACKAGES, *options, *(f"--platform={platform}" for platform in PLATFORMS))


def pack(
    images: Annotated[Path, typer.Argument(help="Folder of training images.")],
    set5: Annotated[Path, typer.Argument(help="Set5, with HR and LR_bicubic/X2.")],
    state: Annotated[
        Path | None, typer.Option("--state", help="step-*.pt of an earlier report, to go on from.")
    ] = None,
    python: Annotated[str, typer.Option("--python", help="Version of Python there.")] = "3.12",
) -> None:
    """Collect wheels, training images and Set5 in gpu_carry/."""
    try:
        shutil.rmtree(CARRIED, ignore_errors=True)
        (CARRIED / "images").mkdir(parents=True)
        download(CARRIED / "wheels", python)
        for part in ("HR", "LR_bicubic/X2"):
            copy(sorted((set5 / part).glob("*.png")), CARRIED / "Set5" / part)
        if state is not None:
            copy([state], CARRIED)
        found = sorted(path for path in images.rglob("*") if path.suffix.lower() in SUFFIXES)
        chosen = fitting(found, LIMIT - SPARE - tree_size() - size(CARRIED))
        copy(chosen, CARRIED / "images")
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    wheels = len(list((CARRIED / "wheels").iterdir()))
    total = (tree_size() + size(CARRIED)) / 2**20
    typer.echo(f"{CARRIED}: {wheels} wheels, {len(chosen)} of {len(found)} images; with the project {total:.1f} MiB")


def copy(files: list[Path], folder: Path) -> None:
    """Copy files into a folder; a ValueError if there are none."""
    if not files:
        raise ValueError(f"no files for {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    for path in files:
        shutil.copyfile(path, folder / path.name)


app = typer.Typer(add_completion=False)
app.command()(pack)

if __name__ == "__main__":
    app()
