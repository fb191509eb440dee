"""The keeper: images are given out, taken back from lost workers, and recorded."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from swinir.cluster.keeper import Keeper
from swinir.photos.manifest import Records, Result, read_rows


def row(number, status="restored"):
    return Result(f"in/{number}.png", f"out/{number}.png", status)


def pair(number):
    return f"in/{number}.png", f"out/{number}.png"


@pytest.fixture
def keeper(tmp_path):
    """A keeper whose worker 1 has images 0 to 7."""
    keeper = Keeper(tmp_path / "records")
    keeper.exchange([pair(number) for number in range(8)])
    assert [keeper.take(1) for _ in range(9)] == [*map(pair, range(8)), None]
    return keeper


def test_records_that_come_together_are_all_on_the_disk_and_need_fewer_writes(keeper, monkeypatch):
    syncs, together = [], Barrier(8)
    real = os.fsync
    gate = ThreadPoolExecutor(8)

    def counted(descriptor):
        if not syncs:
            while len(keeper._unwritten) < 7:  # the others come while the first is written
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


def test_results_are_given_once_and_skipped_images_have_no_record(keeper):
    keeper.add(row(1, "begun"))
    keeper.add(row(2, "skipped"))
    keeper.add(row(3, "failed"))
    failed = Result("in/9.gif", "out/9.png", "failed")
    results, waiting, suspects = keeper.exchange([failed, pair(8)])
    assert (results, waiting, suspects) == ([row(2, "skipped"), row(3, "failed"), failed], 1, 0)
    assert keeper.exchange([]) == ([], 1, 0)
    assert read_rows(keeper.records.path)[0] == [row(1, "begun"), row(3, "failed"), failed]


def test_a_record_of_another_run_is_seen(keeper):
    Records(keeper.records.path.parent).add(row(1))
    assert keeper.last("out/1.png") == (row(1), None)


def test_after_an_error_nothing_is_recorded_as_if_it_were_on_the_disk(keeper, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="make room"):
            keeper.add(row(1))
    with pytest.raises(OSError, match="make room"):
        keeper.add(row(2))
    with pytest.raises(OSError, match="make room"):
        keeper.exchange([])


def test_images_of_a_worker_that_died_are_given_one_by_one_three_times_at_most(keeper):
    for number in range(2, 8):
        keeper.add(row(number))
    assert keeper.lost(1, died=True) == (2, True)
    assert keeper.exchange([])[1:] == (0, 2)
    assert keeper.take(2) is None
    assert keeper.take(2, suspect=True) == pair(0)
    assert keeper.take(2, suspect=True) is None
    keeper.add(row(0))
    for worker in (3, 4):
        assert keeper.take(worker, suspect=True) == pair(1)
        keeper.lost(worker, died=True)
    (*_, failed), waiting, suspects = keeper.exchange([])
    assert (failed.output, failed.status, waiting, suspects) == ("out/1.png", "failed", 0, 0)
    assert failed.error.startswith("in/1.png: the worker died 3 times while it had this image; it may lack memory")


def test_images_of_a_worker_that_refuses_wait_for_any_other(keeper):
    for number in range(1, 8):
        keeper.add(row(number))
    assert keeper.lost(1, died=False) == (1, True)
    assert keeper.take(2) == pair(0)
    assert keeper.lost(3, died=True) == (0, False)


def test_a_record_that_comes_late_from_a_lost_worker_is_none(keeper):
    keeper.lost(1, died=True)
    keeper.add(row(1))
    assert keeper.exchange([]) == ([], 0, 8)
    assert not keeper.records.path.exists()
