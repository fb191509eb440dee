"""Files appear whole and last: what is put on the disk, in which order, and what failures leave."""

import errno
import os
import stat
from pathlib import Path

import pytest

from swinir.atomic import atomic_path, sync_folder, temporaries


def failing(code):
    def fail(*_arguments):
        raise OSError(code, os.strerror(code))

    return fail


def test_the_data_is_on_the_disk_before_the_name_and_the_name_before_the_end(tmp_path, monkeypatch):
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


def test_a_file_being_written_is_seen_among_the_temporaries_and_under_no_other_name(tmp_path):
    (tmp_path / "notes.part").touch()
    with atomic_path(tmp_path / "file") as temporary:
        assert temporaries(tmp_path) == [temporary]
        assert not (tmp_path / "file").exists()
    assert temporaries(tmp_path) == []


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_cannot_sync_folders_is_no_failure(tmp_path, monkeypatch, code):
    monkeypatch.setattr(os, "fsync", failing(code))
    sync_folder(tmp_path)


def test_a_folder_on_a_broken_disk_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        sync_folder(tmp_path)
