"""The installation: folders that come with the package, and the commit of a source tree."""

import subprocess
from pathlib import Path

PACKAGE = Path(__file__).parent


def source_tree() -> Path | None:
    """Return the folder of the source tree that the package runs from; None for an installed package."""
    return PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else None


def shipped_folder(name: str) -> Path | None:
    """Return a folder that comes with the package, such as "model_zoo/bundled".

    A wheel has it inside the package, a source tree beside it. None where it is missing.
    """
    places = [place / name for place in (PACKAGE, source_tree()) if place]
    return next((place for place in places if place.is_dir()), None)


def commit() -> str | None:
    """Return the commit of the source tree, with "-dirty" when it has changes; None outside of one."""
    root = source_tree()
    if root is None:
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
