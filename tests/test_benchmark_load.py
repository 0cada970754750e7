"""benchmarks/load.py: figures are refused while other programs use the CPU. The CPU times are virtual."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from stream_seg.errors import StreamSegError

FOLDER = Path(__file__).parents[1] / "benchmarks"
CORES = 2


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module benchmarks/load.py."""
    monkeypatch.syspath_prepend(FOLDER)
    yield import_module("load")
    sys.modules.pop("load", None)


class VirtualMachine:
    """CPU times of a machine whose other programs use shares of its cores, one by one for each wait and measurement."""

    def __init__(self, *shares: float) -> None:
        self._shares = iter(shares)
        self.total = self.busy = self.own = 0.0
        self.measured = 0

    def pass_time(self, seconds: float, own: float = 0.0) -> None:
        """Let time pass, of which this process and its children compute `own` seconds."""
        self.total += CORES * seconds
        self.busy += CORES * seconds * next(self._shares) + own
        self.own += own

    def measure(self) -> int:
        """Compute for ten seconds on one core, and return the number of the measurement."""
        self.pass_time(10, own=10)
        self.measured += 1
        return self.measured

    def to_machine(self, load: ModuleType) -> Any:
        """Return the machine that `load` reads."""
        return load.Machine(lambda: load.CpuTimes(self.busy, self.total, self.own), self.pass_time)


def test_own_cpu_time_is_not_that_of_others(load: ModuleType) -> None:
    machine = VirtualMachine(0.1, 0.05)
    result, measured = load.measure_quietly(machine.measure, machine=machine.to_machine(load))
    assert (result, measured.before, measured.during) == (1, pytest.approx(0.1), pytest.approx(0.05))
    assert load.describe_load([measured]) == {"others": 0.1, "limit": 0.15, "worthless": False}


def test_a_measurement_waits_for_a_quiet_machine(load: ModuleType) -> None:
    machine = VirtualMachine(0.9, 0.9, 0.0, 0.0)
    assert load.measure_quietly(machine.measure, machine=machine.to_machine(load))[0] == 1


def test_a_disturbed_measurement_is_repeated_twice(load: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    machine = VirtualMachine(0.0, 0.2, 0.0, 0.3, 0.0, 0.1)
    assert load.measure_quietly(machine.measure, machine=machine.to_machine(load))[0] == 3
    assert capsys.readouterr().err.splitlines() == [
        f"other programs used {share} of the CPU: measured again" for share in ("20%", "30%")
    ]


def test_a_machine_that_stays_busy_is_refused(load: ModuleType) -> None:
    disturbed = VirtualMachine(0.0, 0.2, 0.0, 0.3, 0.0, 0.4)
    with pytest.raises(StreamSegError, match="other programs used 40% of the CPU, at most 15% are allowed"):
        load.measure_quietly(disturbed.measure, machine=disturbed.to_machine(load))
    assert disturbed.measured == 3
    busy = VirtualMachine(*[0.5] * load.PATIENCE)
    with pytest.raises(StreamSegError, match="other programs used 50% of the CPU"):
        load.measure_quietly(busy.measure, machine=busy.to_machine(load))
    assert busy.measured == 0


def test_busy_ok_measures_once_and_marks_the_figures(load: ModuleType) -> None:
    machine = VirtualMachine(0.4)
    result, measured = load.measure_quietly(machine.measure, busy_ok=True, machine=machine.to_machine(load))
    assert (result, load.describe_load([load.Load(), measured])["worthless"]) == (1, True)


def test_an_unknown_load_refuses_nothing(load: ModuleType, tmp_path: Path) -> None:
    assert load.read_cpu_times(tmp_path / "stat") is None
    result, measured = load.measure_quietly(lambda: 1, machine=load.Machine(lambda: None, lambda seconds: None))
    assert (result, measured.others, load.describe_load([measured])["others"]) == (1, None, None)


def test_only_cores_of_this_process_count(load: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1}, raising=False)
    stat = tmp_path / "stat"
    stat.write_text("cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 8 8 8 8 8 8 8 8 8 8\ncpu1 1 2 3 40 5 6 7 8 1 2\nintr 5\n")
    times, tick_s = load.read_cpu_times(stat), 1 / os.sysconf("SC_CLK_TCK")
    assert (times.busy, times.total) == pytest.approx((27 * tick_s, 72 * tick_s))
    assert times.own > 0
