"""Arrays in memory and on disk that share one limit."""

import gc
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from swinir.image_io.canvas import DiskSpaceError, Workspace

SHAPE = (64, 1024, 16)  # 1 MiB of bytes


def mapped(array):
    """Whether the memory of an array lies in a file."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array.base is not None


def test_arrays_beyond_the_limit_lie_in_files_without_a_name(tmp_path):
    workspace = Workspace(tmp_path, memory_limit=2.5 * 2**20)
    arrays = [workspace.array(SHAPE, np.uint8) for _ in range(4)]
    assert [mapped(array) for array in arrays] == [False, False, True, True]
    for i, array in enumerate(arrays):
        array[:] = i
        workspace.release()
    assert [int(array.min()) for array in arrays] == [int(array.max()) for array in arrays] == [0, 1, 2, 3]
    assert not list(tmp_path.iterdir())


def test_memory_counts_until_the_last_view_is_gone(tmp_path):
    workspace = Workspace(tmp_path, memory_limit=1.5 * 2**20)
    view = workspace.array(SHAPE, np.uint8)[..., :3]
    gc.collect()
    assert not workspace.fits(2**20)
    assert mapped(workspace.array(SHAPE, np.uint8))
    del view
    gc.collect()
    assert workspace.fits(2**20)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells resident memory")
def test_released_pages_are_not_resident(tmp_path):
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    workspace = Workspace(tmp_path, memory_limit=0)
    array = workspace.array((64 * 2**20,), np.uint8)
    array[:] = 7
    before = resident()
    workspace.release()
    assert before - resident() > 50 * 2**20
    assert (array == 7).all()


def test_a_full_disk_is_reported_before_anything_is_written(tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(2**30))
    workspace = Workspace(tmp_path, memory_limit=0)
    with pytest.raises(DiskSpaceError, match=r"temporary files need 4.3 GB in .*, which has 1.1 GB free; make room"):
        workspace.array((2**32,), np.uint8)
    workspace.require(2**29)
    assert not list(tmp_path.iterdir())
