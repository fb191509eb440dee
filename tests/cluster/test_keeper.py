"""The keeper of records: written together, and stopped by an error."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from swinir.cluster.keeper import Keeper
from swinir.photos.manifest import Records, Result, read_rows


def row(number, status="restored"):
    return Result(f"in/{number}.png", f"out/{number}.png", status)


def test_records_that_come_together_are_all_on_the_disk_and_need_fewer_writes(tmp_path, monkeypatch):
    keeper, syncs, together = Keeper(tmp_path / "records"), [], Barrier(8)
    real = os.fsync
    gate = ThreadPoolExecutor(8)

    def counted(descriptor):
        if not syncs:
            while len(keeper._waiting) < 7:  # the others come while the first is written
                pass
        syncs.append(descriptor)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", counted)

    def add(number):
        together.wait()
        keeper.add(row(number))
        return keeper.last(f"out/{number}.png")[0]

    with gate:
        made = list(gate.map(add, range(8)))
    assert [record.input for record in made] == [f"in/{number}.png" for number in range(8)]
    assert len(syncs) == 2
    assert {record.input for record in read_rows(keeper.records.path)[0]} == {f"in/{i}.png" for i in range(8)}


def test_done_records_are_given_once_and_attempts_are_none(tmp_path):
    keeper = Keeper(tmp_path)
    keeper.add(row(1, "begun"))
    keeper.add(row(2, "failed"))
    assert list(keeper.take_done()) == ["out/2.png"]
    assert keeper.take_done() == {}
    assert keeper.last("out/1.png") == (None, row(1, "begun"))


def test_a_record_of_another_run_is_seen(tmp_path):
    keeper = Keeper(tmp_path)
    Records(tmp_path).add(row(1))
    assert keeper.last("out/1.png") == (row(1), None)


def test_after_an_error_nothing_is_recorded_as_if_it_were_on_the_disk(tmp_path, monkeypatch):
    keeper = Keeper(tmp_path)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="make room"):
            keeper.add(row(1))
    with pytest.raises(OSError, match="make room"):
        keeper.add(row(2))
    assert keeper.take_done() == {}


def test_images_that_workers_have_begun_are_told_once(tmp_path):
    keeper = Keeper(tmp_path)
    keeper.start("out/1.png")
    assert keeper.take_started() == {"out/1.png"}
    assert keeper.take_started() == set()
