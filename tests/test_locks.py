"""Locks between processes: one holder, shared folders, claims, and holders that were killed."""

import os
import platform

import pytest
from forks import Beside, in_another_process

import swinir.locks
from swinir.locks import LOCK, BusyError, FolderLock


def is_busy(folder):
    try:
        FolderLock(folder).hold()
    except BusyError:
        return True
    return False


def test_a_folder_has_one_holder_whom_others_can_name(tmp_path):
    lock = FolderLock(tmp_path)
    lock.hold()
    assert in_another_process(lambda: is_busy(tmp_path)) == 1
    said = (tmp_path / LOCK).read_text()
    assert said.startswith(f"process {os.getpid()} on {platform.node()}, since ")
    lock.close()
    assert not list(tmp_path.iterdir())
    assert in_another_process(lambda: is_busy(tmp_path)) == 0


def test_a_killed_holder_leaves_no_lock(tmp_path):
    def hold():
        lock = FolderLock(tmp_path)
        lock.hold()
        return lock

    other = Beside(hold)
    assert is_busy(tmp_path)
    other.kill()
    assert (tmp_path / LOCK).exists()
    assert not is_busy(tmp_path)


def test_an_output_is_claimed_by_one_process(tmp_path):
    lock = FolderLock(tmp_path)
    lock.share()
    assert lock.claim("a")

    def claims():
        other = FolderLock(tmp_path)
        other.share()
        return 2 * other.claim("a") + other.claim("b")

    assert in_another_process(claims) == 1
    lock.release("a")
    assert in_another_process(claims) == 3


def test_one_who_shares_a_folder_is_alone_when_the_others_have_left(tmp_path):
    lock = FolderLock(tmp_path)
    lock.share()

    def is_alone():
        other = FolderLock(tmp_path)
        other.share()
        with other.alone() as alone:
            return alone

    assert in_another_process(is_alone) == 0
    lock.close()
    assert in_another_process(is_alone) == 1


def test_a_lock_on_a_file_that_its_last_holder_removed_is_taken_again(tmp_path, monkeypatch):
    real, attempts = swinir.locks._lock, []

    def remove_first(file, start, **how):
        if not attempts:
            (tmp_path / LOCK).unlink()
        attempts.append(start)
        return real(file, start, **how)

    monkeypatch.setattr(swinir.locks, "_lock", remove_first)
    FolderLock(tmp_path).hold()
    assert len(attempts) == 2


@pytest.mark.parametrize("without", ["locks", "permission"])
def test_where_there_are_no_locks_everything_is_granted_and_nobody_is_alone(tmp_path, monkeypatch, without):
    if without == "locks":
        monkeypatch.setattr(swinir.locks, "fcntl", None)
    folder = tmp_path if without == "locks" else tmp_path / "absent"
    lock = FolderLock(folder)
    lock.share()
    assert lock.claim("a")
    with lock.alone() as alone:
        assert not alone
    lock.release("a")
    lock.close()
    lock.hold()
