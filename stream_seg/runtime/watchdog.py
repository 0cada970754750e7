"""Find the stages that make no progress: a thread reads the activity of every stage twice a second.

A stage is stalled if its own code runs (loading, on a frame, finishing) for `stall_s` without a sign of progress.
Waiting for a frame, and waiting for the next stage to take one, is no stall; if all stages wait, a link has failed, and
all are stalled. A stage gets more time

* that it asks for with `Context.busy`, such as for a camera that has a time-out or for compiling an engine;
* if its frames take long: SLOW_FACTOR times the mean of those that it has finished;
* while numba compiles a function, as at the first frame with an empty cache.

Time in which a stage could not run does not count either: its thread waits for a CPU that others use, or the whole
process is stopped (the clock advances by at most LONGEST_STEP_S between two checks).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

from stream_seg.ops.jit import is_compiling
from stream_seg.runtime.activity import BUSY
from stream_seg.runtime.worker import Worker

LOG = logging.getLogger(__name__)
INTERVAL_S = 0.5
LONGEST_STEP_S = 4 * INTERVAL_S
SLOW_FACTOR = 10
FINISH_S = 60.0
"""Time that a stage may take after its last frame, besides `stall_s`: an output completes its files."""


@dataclass(frozen=True)
class Stall:
    """A stage that makes no progress."""

    stage: str
    seconds: float
    doing: str

    def __str__(self) -> str:
        return f"stage {self.stage} makes no progress: {self.doing} for {self.seconds:.0f} s"


@dataclass
class _Watched:
    """Steps of a stage at the last check that saw progress, and the clock and the CPU delay of its thread then."""

    steps: int
    since_s: float
    delay_s: float


class Watchdog:
    """Judges the stages of a graph at each `check`, which `start` runs in a thread of its own."""

    def __init__(self, workers: Callable[[], Sequence[Worker]], *, stall_s: float) -> None:
        self._workers, self._stall_s = workers, stall_s
        self._watched: dict[Worker, _Watched] = {}
        self._time_s, self._checked_s = 0.0, time.monotonic()
        self._announced: set[str] = set()  # stages whose long step was logged
        self._stopped = Event()
        self._thread = Thread(target=self._run, name="watchdog", daemon=True)
        self.stalls: Mapping[str, Stall] = {}
        """The stages that are stalled now, by name."""
        self.blocked = False
        """A stage is stalled, and no output has taken or finished a frame for as long."""

    def start(self) -> None:
        """Start the thread; `stop` follows."""
        self._checked_s = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join()

    def check(self, now_s: float) -> None:
        """Update `stalls`, and log the stages that stall or recover. `now_s` is the reading of a monotonic clock."""
        step_s, self._checked_s = now_s - self._checked_s, now_s
        self._time_s += 0.0 if is_compiling() else min(step_s, LONGEST_STEP_S)
        running = [worker for worker in self._workers() if worker.activity.state not in ("new", "ended")]
        seconds = quiet = {worker: self._seconds_without_progress(worker) for worker in running}
        if any(worker.activity.state in BUSY for worker in running):
            seconds = {worker: time_s for worker, time_s in seconds.items() if worker.activity.state in BUSY}
        else:  # all stages wait for each other: a frame is lost in a link
            seconds = dict.fromkeys(running, min(seconds.values(), default=0.0))
        stalls: dict[str, Stall] = {}
        for worker, time_s in seconds.items():
            stall = Stall(worker.node.name, time_s, str(worker.activity))
            if time_s >= self._limit_s(worker):
                stalls[stall.stage] = stall
            elif time_s >= self._stall_s and stall.stage not in self._announced:
                LOG.info("stage %s: %s for %.0f s", stall.stage, stall.doing, stall.seconds)
                self._announced.add(stall.stage)
        self._log_changes(stalls, running)
        self._watched = {worker: self._watched[worker] for worker in running}
        self.stalls = stalls
        self.blocked = bool(stalls) and all(quiet[worker] >= self._stall_s for worker in running if worker.is_output)

    def _seconds_without_progress(self, worker: Worker) -> float:
        steps = worker.activity.steps
        watched = self._watched.get(worker)
        delay_s = read_cpu_delay_s(worker.thread) if worker.activity.state in BUSY else 0.0
        if watched is None or watched.steps != steps:
            watched = self._watched[worker] = _Watched(steps, self._time_s, delay_s)
            self._announced.discard(worker.node.name)
        return self._time_s - watched.since_s - max(0.0, delay_s - watched.delay_s)

    def _limit_s(self, worker: Worker) -> float:
        """Return the seconds after which the stage is stalled in its current step."""
        activity, durations = worker.activity, worker.duration_ms
        usual_s = SLOW_FACTOR * durations.total / 1000 / max(1, durations.count)
        extra_s = max(activity.within_s, FINISH_S if activity.state == "finishing" else 0.0)
        return max(self._stall_s, usual_s if activity.state == "working" else 0.0) + extra_s

    def _log_changes(self, stalls: Mapping[str, Stall], running: Sequence[Worker]) -> None:
        for name, stall in stalls.items():
            if name not in self.stalls:
                LOG.warning("%s", stall)
        names = {worker.node.name for worker in running}
        for name, before in self.stalls.items():
            if name not in stalls and name in names:
                LOG.warning("stage %s makes progress again, after %.0f s", name, before.seconds)

    def _run(self) -> None:
        while not self._stopped.wait(INTERVAL_S):
            self.check(time.monotonic())


def read_cpu_delay_s(thread: Thread) -> float:
    """Return the seconds that a thread has waited for a CPU while it could run; 0 where the system does not tell."""
    try:
        statistics = Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text()
        return int(statistics.split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
