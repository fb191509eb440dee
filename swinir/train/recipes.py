"""The configurations that come with the package: found by name, and described by their headers."""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from swinir.environment import shipped_folder

STUDIES = ("ablations",)  # of `swinir reproduce`, which takes them by their scale


@dataclass(frozen=True)
class Recipe:
    """A configuration for `swinir train`.

    Attributes:
        name: folder and file without suffix, such as "lightweight_sr/tiny_x2".
        title: the first line of the header.
        expect: the result to expect, and its source.
        hardware: the machine and the time it takes.
        data: the training images.
    """

    name: str
    path: Path
    title: str
    expect: str
    hardware: str
    data: str


def list_recipes() -> list[Recipe]:
    """List the recipes of `swinir train`, sorted by name; none where the package came without them."""
    return [_read(name, path) for name, path in _files().items() if not name.startswith(STUDIES)]


def _files() -> dict[str, Path]:
    folder = shipped_folder("configs")
    paths = sorted(folder.glob("*/*.toml")) if folder else []
    return {f"{path.parent.name}/{path.stem}": path for path in paths}


def _read(name: str, path: Path) -> Recipe:
    lines = path.read_text(encoding="utf-8").splitlines()
    header = [line.removeprefix("#") for line in lines[: next(i for i, line in enumerate(lines) if line[:1] != "#")]]
    entries: dict[str, str] = {}
    key = ""
    for line in header[1:]:
        if match := re.match(r" (\w+): +(.*)", line):
            key, text = match.groups()
            entries[key] = text
        elif line.strip() and key:
            entries[key] += f" {line.strip()}"
        else:
            key = ""
    told = (entries.get(key, "") for key in ("Expect", "Hardware", "Data"))
    return Recipe(name, path, header[0].strip().rstrip("."), *told)


def find_recipe(name: str) -> Path:
    """Return the file of a recipe: a path, or the name of one that comes with the package.

    Args:
        name: a file; otherwise as in "tiny_x2", "lightweight_sr/tiny_x2" or "configs/lightweight_sr/tiny_x2.toml".

    Raises:
        FileNotFoundError: for an unknown name, with the nearest known ones.
        ValueError: for a name of several recipes.
    """
    if Path(name).is_file():
        return Path(name)
    files = _files()
    wanted = name.removeprefix("configs/").removesuffix(".toml")
    matches = [known for known in files if wanted in (known, known.partition("/")[2])]
    if len(matches) > 1:
        raise ValueError(f"several recipes have the name {name}; choose {' or '.join(matches)}")
    if not matches:
        near = difflib.get_close_matches(wanted, [*files, *(known.partition("/")[2] for known in files)], n=3)
        hint = f"did you mean {', '.join(near)}? " if near else ""
        raise FileNotFoundError(f"no configuration at {name}; {hint}`swinir train --list` lists the recipes")
    return files[matches[0]]


def standard_config(study: str, scale: str) -> Path:
    """Return the configuration of a study of `swinir reproduce`, `configs/STUDY/SCALE.toml`.

    Raises:
        ValueError: for an unknown scale.
        FileNotFoundError: when the package came without the folder.
    """
    folder = shipped_folder(f"configs/{study}")
    if folder is None:
        raise FileNotFoundError(
            f"this installation has no configs/{study}; reinstall the package, or name a file with --config"
        )
    path = folder / f"{scale}.toml"
    if not path.is_file():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.toml")))
        raise ValueError(f"--scale must be one of {known}, got {scale!r}; or name a file with --config")
    return path
