"""Threads for work on several frames at a time."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import CancelledError
from threading import Barrier, Event, current_thread

import pytest

from stream_seg.stages.workers import Workers


def test_calls_run_side_by_side_and_give_their_own_results() -> None:
    both = Barrier(2)
    with Workers(2, name="side") as workers:
        futures = [workers.submit(lambda i: (both.wait(10), i)[1], i) for i in range(4)]
        assert [future.result(10) for future in futures] == [0, 1, 2, 3]
        assert workers.submit(lambda: current_thread().name).result(10) in ("side 0", "side 1")


def test_an_error_is_raised_where_the_result_is_read() -> None:
    with Workers(1, name="one") as workers:
        failing = workers.submit(lambda: 1 // 0)
        assert workers.submit(lambda: 2).result(10) == 2
        with pytest.raises(ZeroDivisionError):
            failing.result(10)


def test_the_end_cancels_calls_that_have_not_begun_and_waits_for_the_others() -> None:
    begun, released = Event(), Event()
    with Workers(1, name="one") as workers:
        first = workers.submit(lambda: (begun.set(), released.wait(10)))
        second = workers.submit(lambda: None)
        begun.wait(10)
        second.add_done_callback(lambda _: released.set())
    assert first.done()
    with pytest.raises(CancelledError):
        second.result(0)


def test_a_call_that_hangs_does_not_keep_the_program_from_ending() -> None:
    code = (
        "from threading import Event\nfrom stream_seg.stages.workers import Workers\n"
        "begun = Event()\nWorkers(1, name='one').submit(lambda: (begun.set(), Event().wait()))\nbegun.wait()"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
