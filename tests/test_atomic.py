"""Atomic writing: the order of writes to the disk, and the traces of failures."""

import errno
import os
import stat
from pathlib import Path

import pytest

from swinir.atomic import atomic_path, leftovers, sync_folder, temporaries


def failing(code):
    def fail(*_arguments):
        raise OSError(code, os.strerror(code))

    return fail


def test_the_data_is_synced_before_the_rename_and_the_folder_after_it(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(descriptor):
        events.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "data")
        fsync(descriptor)

    def noted_replace(source, target):
        events.append("rename")
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    with atomic_path(tmp_path / "file") as temporary:
        temporary.write_bytes(b"new")
    assert events == ["data", "rename", "folder"]
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_file_being_written_is_a_temporary_and_a_failure_leaves_nothing(tmp_path):
    (tmp_path / "notes.part").touch()
    with atomic_path(tmp_path / "file") as temporary:
        assert temporaries(tmp_path) == [temporary]
        assert not (tmp_path / "file").exists()
    assert temporaries(tmp_path) == []
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "file") as temporary:
        temporary.rename(tmp_path / "gone" / "file")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert {path.name for path in tmp_path.iterdir()} == {"file", "notes.part"}


def test_an_error_names_the_file_and_not_its_temporary_one(tmp_path):
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "absent" / "file", tmp_path / "folder"):
        with pytest.raises(OSError, match=f"'{path}'$") as caught, atomic_path(path) as temporary:
            temporary.write_bytes(b"new")
        assert caught.value.filename == str(path)


def test_an_error_of_a_full_disk_names_the_file(tmp_path):
    with pytest.raises(OSError, match="No space left") as caught, atomic_path(tmp_path / "file"):
        failing(errno.ENOSPC)()
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "file"))


def test_only_file_systems_that_cannot_sync_folders_are_forgiven(tmp_path, monkeypatch):
    for code in (errno.EINVAL, errno.ENOTSUP):
        monkeypatch.setattr(os, "fsync", failing(code))
        sync_folder(tmp_path)
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        sync_folder(tmp_path)


def test_leftovers_are_files_of_processes_that_ended(tmp_path):
    with atomic_path(tmp_path / "file") as mine:
        assert leftovers(tmp_path, of_others=True) == []
    ended = os.fork()
    if ended == 0:
        os._exit(0)
    os.waitpid(ended, 0)
    *start, _, suffix = mine.name.split(".")
    left = tmp_path / ".".join([*start, str(ended), suffix])
    others = {tmp_path / f".{'0' * 16}.part", tmp_path / f".{'0' * 16}.{'0' * 8}.{ended}.part"}
    for path in (left, *others, tmp_path / ".mine.part"):
        path.touch()
    assert leftovers(tmp_path) == [left]
    assert set(leftovers(tmp_path, of_others=True)) == {left, *others}
