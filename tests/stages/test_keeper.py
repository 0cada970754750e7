"""The thread that looks after the files of an output."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from stream_seg.errors import OutputError
from stream_seg.stages import keeper
from stream_seg.stages.keeper import Keeper
from tests.support.program import wait_until


@dataclass
class File:
    """A file whose sync fails while `error` is set."""

    error: OutputError | None = None
    closed: bool = False
    synced: int = 0

    def sync(self) -> None:
        if self.error is not None:
            raise self.error
        self.synced += 1


def fail_to_divide() -> None:
    1 / 0  # noqa: B018


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "SYNC_S", 0.01)


def test_tasks_run_in_order_and_before_the_end() -> None:
    done: list[int] = []
    with Keeper(pytest.fail, name="write") as thread:
        for number in range(5):
            thread.run(lambda number=number: done.append(number))  # type: ignore[misc]
    assert done == [0, 1, 2, 3, 4]


def test_every_error_ends_the_run_and_nothing_else() -> None:
    errors: list[str] = []
    healthy, faulty = File(), File(OutputError("cannot write o.mp4: disk full"))
    done: list[str] = []
    with Keeper(lambda error: errors.append(str(error)), name="write") as thread:
        thread.run(fail_to_divide)
        thread.run(lambda: done.append("next task"))
        thread.add(faulty)
        thread.add(healthy)
        wait_until(lambda: len(errors) > 2 and healthy.synced)
    assert errors[0] == "write files: ZeroDivisionError: division by zero"
    assert {*errors[1:]} == {"cannot write o.mp4: disk full"}
    assert done == ["next task"]


def test_a_closed_file_is_forgotten() -> None:
    first, second = File(), File()
    with Keeper(pytest.fail, name="write") as thread:
        thread.add(first)
        wait_until(lambda: first.synced)
        first.closed = True
        thread.add(second)
        wait_until(lambda: second.synced)
        before = first.synced
        wait_until(lambda: second.synced > 3)
    assert first.synced == before
