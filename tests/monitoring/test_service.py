"""The systemd unit: valid, watched, and a crash loop ends in the state "failed"."""

from __future__ import annotations

import re
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "monitoring" / "stream-seg.service"

WATCHDOG_S = 90
"""WatchdogSec of the unit: the life of a program that hangs from the start."""


def read_unit() -> ConfigParser:
    """Return the sections and keys of the unit; a key that is there twice is an error."""
    unit = ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign] # keys keep their case
    unit.read_string(UNIT.read_text(encoding="utf-8"))
    return unit


def starts(*, interval_s: float, burst: int, restart_s: float, run_s: float, until_s: float) -> list[float]:
    """Return the times at which systemd starts a service that always ends after `run_s`.

    A start is refused if `burst` starts lie within the last `interval_s` (systemd.unit(5), StartLimitBurst).
    """
    times: list[float] = []
    now_s = 0.0
    while now_s < until_s and sum(now_s - start_s < interval_s for start_s in times) < burst:
        times.append(now_s)
        now_s += run_s + restart_s
    return times


@pytest.mark.parametrize("run_s", [0.1, 2, 30, WATCHDOG_S + 5])
def test_a_crash_loop_ends(run_s: float) -> None:
    unit = read_unit()
    limits = {"interval_s": float(unit["Unit"]["StartLimitIntervalSec"]), "burst": int(unit["Unit"]["StartLimitBurst"])}
    restart_s = float(unit["Service"]["RestartSec"])
    times = starts(**limits, restart_s=restart_s, run_s=run_s, until_s=86_400)  # type: ignore[arg-type]
    assert len(times) == limits["burst"]
    assert times[-1] < (600 if run_s < WATCHDOG_S else 1800)
    assert max(sum(0 <= time_s - start_s < 60 for time_s in times) for start_s in times) <= 5
    unlimited = starts(interval_s=0, burst=1, restart_s=restart_s, run_s=run_s, until_s=86_400)
    assert len(unlimited) > 700


def test_a_service_that_fails_now_and_then_goes_on() -> None:
    unit = read_unit()
    interval_s, burst = float(unit["Unit"]["StartLimitIntervalSec"]), int(unit["Unit"]["StartLimitBurst"])
    times = starts(interval_s=interval_s, burst=burst, restart_s=15, run_s=300, until_s=86_400)
    assert times[-1] > 86_000


def test_the_service_is_watched() -> None:
    service = read_unit()["Service"]
    assert service["Type"] == "notify"
    assert int(service["WatchdogSec"]) == WATCHDOG_S
    assert service["Restart"] == "on-failure"  # also after the watchdog, a signal, and any exit code other than 0
    assert service["RestartPreventExitStatus"] == "2"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("key", ["WatchdogSec", "StartLimitBurst"])
def test_systemd_accepts_the_unit(key: str, tmp_path: Path) -> None:
    unit = UNIT.read_text(encoding="utf-8").replace("/opt/stream-seg/bin/stream-seg", "/bin/true")
    assert verify(tmp_path / "stream-seg.service", unit) == ""
    assert f"'{key}x'" in verify(tmp_path / "wrong.service", re.sub(f"^{key}=", f"{key}x=", unit, flags=re.MULTILINE))


def verify(path: Path, unit: str) -> str:
    """Return what systemd-analyze reports of a unit, without what it says of the units of this machine."""
    path.write_text(unit)
    run = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, timeout=60, check=False)
    return "".join(line for line in run.stderr.splitlines() if str(path) in line)
