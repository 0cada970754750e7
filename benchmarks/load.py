"""CPU time of other programs while a benchmark runs: figures of a busy machine are refused.

    with quiet_machine() as load:
        figures = measure()
    load.require_quiet()

    figures, load = measure_quietly(measure)  # the same, repeated while the machine is busy

Other programs are all but this process and its children, which must have been waited for (`subprocess.run` does) when
the body ends. Where the system counts no CPU time by core (no /proc/stat), the load is unknown and nothing is refused.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeAlias, TypeVar

import typer

from stream_seg.errors import StreamSegError

MOST_BUSY = 0.15
"""Largest share of the cores that other programs may use."""
WATCH_S = 0.3
"""Time to watch the machine before a measurement. CPU time is counted in steps of 10 ms per core."""
PATIENCE = 30
"""Times that the machine is watched before a measurement, until it is quiet."""
ATTEMPTS = 3

T = TypeVar("T")


class CpuTimes(NamedTuple):
    """CPU seconds of the cores that this process may use: `busy` and `total`, and `own`, of this process and children.

    `busy` counts time that the host of a virtual machine took away. Only differences mean something.
    """

    busy: float
    total: float
    own: float


@dataclass(frozen=True)
class Machine:
    """The machine's CPU times, None where they are unknown, and a way to wait. Tests pass virtual ones."""

    read: Callable[[], CpuTimes | None]
    wait_s: Callable[[float], None] = time.sleep


@dataclass
class Load:
    """Shares of the cores, 0 to 1, that other programs used before and during a measurement; None: unknown."""

    busy_ok: bool = False
    before: float | None = None
    during: float | None = None

    @property
    def others(self) -> float | None:
        """The larger of both shares."""
        return max((share for share in (self.before, self.during) if share is not None), default=None)

    def is_quiet(self) -> bool:
        """Return True if other programs used little, or an unknown share."""
        return (self.others or 0.0) <= MOST_BUSY

    def require_quiet(self) -> None:
        """Raise StreamSegError if other programs used too much, unless `busy_ok`."""
        if not (self.busy_ok or self.is_quiet()):
            raise StreamSegError(
                f"other programs used {self.others:.0%} of the CPU, at most {MOST_BUSY:.0%} are allowed: "
                "stop them and measure again (--busy-ok measures all the same)"
            )


def read_cpu_times(stat: Path = Path("/proc/stat")) -> CpuTimes | None:
    """Return the CPU times of this machine, or None where there is no /proc/stat."""
    try:
        text = stat.read_text(encoding="ascii")
    except OSError:
        return None
    cores = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    rows = [line.split() for line in text.splitlines()]
    # user, nice, system, idle, iowait, irq, softirq, steal; the rest is part of user and nice
    ticks = [[int(value) for value in row[1:9]] for row in rows if row and row[0] in cores]
    total, idle = sum(map(sum, ticks)), sum(row[3] + row[4] for row in ticks)
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    return CpuTimes((total - idle) * tick_s, total * tick_s, sum(usage.ru_utime + usage.ru_stime for usage in usages))


THIS_MACHINE = Machine(read_cpu_times)


@contextmanager
def quiet_machine(machine: Machine = THIS_MACHINE, *, busy_ok: bool = False) -> Iterator[Load]:
    """Yield the load, which is complete when the body has ended, once the machine is quiet.

    Raises StreamSegError before the body if the machine stays busy for 9 s. With `busy_ok` nothing is waited for or
    refused.
    """
    load = Load(busy_ok)
    for _ in range(0 if busy_ok else PATIENCE):
        began = machine.read()
        machine.wait_s(WATCH_S)
        load.before = _share_of_others(began, machine.read())
        if load.is_quiet():
            break
    load.require_quiet()
    began = machine.read()
    yield load
    load.during = _share_of_others(began, machine.read())


def measure_quietly(
    measure: Callable[[], T], *, busy_ok: bool = False, machine: Machine = THIS_MACHINE
) -> tuple[T, Load]:
    """Return the result of `measure` and the load, from the first of three attempts that other programs left alone.

    Raises StreamSegError after the third. With `busy_ok` the first attempt counts in any case.
    """
    attempt = 1
    while True:
        with quiet_machine(machine, busy_ok=busy_ok) as load:
            result = measure()
        if attempt == ATTEMPTS:
            load.require_quiet()
        if busy_ok or load.is_quiet():
            return result, load
        print(f"other programs used {load.others:.0%} of the CPU: measured again", file=sys.stderr)
        attempt += 1


def _share_of_others(began: CpuTimes | None, ended: CpuTimes | None) -> float | None:
    if began is None or ended is None:
        return None
    busy, total, own = (after - before for before, after in zip(began, ended, strict=True))
    return min(1.0, max(0.0, busy - own) / total) if total > 0 else 0.0


BusyOk: TypeAlias = Annotated[
    bool, typer.Option("--busy-ok", help="Measure on a busy machine too; such figures are worth nothing.")
]


def describe_load(loads: list[Load]) -> dict[str, Any]:
    """Return the largest share that other programs used, for JSON, and True for `worthless` if that was too much."""
    shares = [load.others for load in loads if load.others is not None]
    return {
        "others": round(max(shares), 3) if shares else None,
        "limit": MOST_BUSY,
        "worthless": not all(load.is_quiet() for load in loads),
    }


def mark_worthless(load: dict[str, Any]) -> str:
    """Return the end of a table's title by the facts of `describe_load`: "" if the figures are worth something."""
    return f"; WORTHLESS: other programs used {load['others']:.0%} of the CPU" if load["worthless"] else ""
