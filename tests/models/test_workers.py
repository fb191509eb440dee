"""Threads that share pieces of work."""

import itertools
import multiprocessing
import os
import subprocess
import sys
import threading
import time

import pytest
import torch

from swinir.models import workers
from swinir.models.workers import each


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_each_piece_is_done_once_by_threads_that_compute_alone(two_threads):
    done, together = [], threading.Barrier(2, timeout=60)

    def work(piece):
        if piece < 2:
            together.wait()  # passes only if two threads are at work
        done.append((piece, threading.get_ident(), torch.get_num_threads()))

    each(range(50), work)
    assert sorted(piece for piece, _, _ in done) == list(range(50))
    assert len({thread for _, thread, _ in done}) == 2
    assert {threads for _, _, threads in done} == {1}


def test_the_number_of_threads_stays_for_the_caller_and_threads_to_come(two_threads):
    each(range(4), lambda piece: None)
    seen = []
    later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert [torch.get_num_threads(), *seen] == [2, 2]


def test_one_thread_needs_no_other():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    threads = []
    each(range(3), lambda piece: threads.append(threading.get_ident()))
    torch.set_num_threads(before)
    assert threads == [threading.get_ident()] * 3


def test_an_error_ends_the_work_and_reaches_the_caller(two_threads):
    done = []

    def work(piece):
        if piece == 3:
            raise MemoryError("no room for piece 3")
        done.append(piece)

    with pytest.raises(MemoryError, match="no room for piece 3"):
        each(iter(range(10**9)), work)
    each(range(3), done.append)  # the threads are ready for more


def test_threads_end_where_not_all_can_be_started(two_threads, monkeypatch):
    torch.set_num_threads(3)
    workers._pool.cache_clear()
    start, begun = threading.Thread.start, []

    def refuse_the_third(thread):
        if len(begun) == 2:
            raise RuntimeError("can't start new thread")
        begun.append(thread)
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse_the_third)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            each(range(9), lambda piece: None)
    for thread in begun:
        thread.join(60)
        assert not thread.is_alive()
    done = []
    each(range(9), done.append)
    assert sorted(done) == list(range(9))


def test_inference_mode_holds_in_the_threads(two_threads):
    with torch.inference_mode():
        x = torch.zeros(4)
        each(range(4), lambda i: x[i : i + 1].add_(1))
    assert torch.equal(x.clone(), torch.ones(4))
    parameter = torch.ones(1, requires_grad=True)
    results = []
    each(range(2), lambda i: results.append(parameter * 2))
    assert not any(result.requires_grad or result.is_inference() for result in results)


def _count(queue):
    done = []
    each(range(5), done.append)
    queue.put(len(done))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forked_processes_start_threads_of_their_own(two_threads):
    each(range(5), lambda piece: None)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_count, args=(queue,))
    child.start()
    assert queue.get(timeout=60) == 5
    child.join(60)
    assert child.exitcode == 0


def test_an_interruption_while_threads_are_given_work_ends_those_that_have_it(two_threads, monkeypatch):
    pool = workers._pool(2)
    submit, begun = pool.submit, []

    def interrupted(work):
        if begun:
            raise KeyboardInterrupt
        begun.append(submit(work))
        return begun[0]

    monkeypatch.setattr(pool, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        each(itertools.repeat(None), lambda _: time.sleep(0.001))
    assert begun[0].done()


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_ends_the_work_and_the_process():
    code = """
import os, signal, threading, time, torch
from swinir.models import workers
from swinir.models.workers import each
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell inherit that it is ignored
torch.set_num_threads(2)
started = threading.Event()
def interrupt():
    started.wait()
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
def work(piece):
    started.set()
    time.sleep(0.001)
try:
    each(iter(range(10**9)), work)
except KeyboardInterrupt:
    print("interrupted")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (run.stdout, run.returncode) == ("interrupted\n", 0), run.stderr
