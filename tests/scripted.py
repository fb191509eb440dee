"""Programs of this repository as modules."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def load_script(path):
    """Return the program at a path in the repository as a new module; programs of a folder import each other."""
    file = ROOT / path
    specification = importlib.util.spec_from_file_location(file.stem, file)
    script = importlib.util.module_from_spec(specification)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(file.parent)
        specification.loader.exec_module(script)
    return script
