"""Folders of a service: private, gone with their process, also when it was killed."""

import os
import stat
import subprocess
import sys

from swinir.locks import LOCK
from swinir.service.folders import FRESH, PREFIX, remove_abandoned, work_folder


def age(folder):
    os.utime(folder, (0, os.stat(folder).st_mtime - 2 * FRESH))


def test_a_folder_is_private_and_removed_with_its_content(tmp_path):
    with work_folder(tmp_path) as folder:
        (folder / "upload").write_bytes(b"1")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    left = tmp_path / f"{PREFIX}left"
    (left / "job").mkdir(parents=True)
    (left / LOCK).write_bytes(b"")
    fresh, other = tmp_path / f"{PREFIX}fresh", tmp_path / "other"
    fresh.mkdir()
    other.mkdir()
    with work_folder(tmp_path) as own:
        for folder in (left, own, other):
            age(folder)
        remove_abandoned(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {own.name, fresh.name, other.name}


def test_the_folder_of_another_process_that_runs_stays(tmp_path):
    code = (
        "import sys; from pathlib import Path; from swinir.service.folders import work_folder\n"
        "with work_folder(Path(sys.argv[1])) as folder: print(folder, flush=True); input()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        folder = other.stdout.readline().strip()
        age(folder)
        remove_abandoned(tmp_path)
        assert os.path.isdir(folder)
        other.kill()
    assert os.path.isdir(folder)
    age(folder)
    remove_abandoned(tmp_path)
    assert not os.path.isdir(folder)
