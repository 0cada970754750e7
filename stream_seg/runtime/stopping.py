"""Wait for the stages of a graph that was stopped."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from stream_seg.runtime.watchdog import read_cpu_delay_s
from stream_seg.runtime.worker import Worker

FINISH_S = 30.0
"""Time that outputs may take to finish their files, since a disk may be slow."""
FINISH_FRAME_S = 0.5
"""Time that a stage may take for the frame that it works on."""
CLOSE_S = 5.0
"""Time that a stage may take to close what it opened: the threads of a network end one after the other."""
POLL_S = 0.02


@dataclass
class _Patience:
    """Time to wait for a stage: from its last sign of progress on, without the time that it waits for a CPU."""

    worker: Worker
    steps: int = -1
    since_s: float = 0.0
    delay_s: float = 0.0

    def is_over(self, now_s: float, *, waited_s: float) -> bool:
        """Return whether the stage has ended or is not waited for any longer; `waited_s` is the time so far."""
        worker, activity, delay_s = self.worker, self.worker.activity, read_cpu_delay_s(self.worker.thread)
        if not worker.thread.is_alive():
            return True
        if worker.is_output and (worker.finishing or activity.state == "waiting"):
            return False
        if activity.excused:
            return waited_s >= FINISH_FRAME_S
        if activity.steps != self.steps:
            self.steps, self.since_s, self.delay_s = activity.steps, now_s, delay_s
        limit_s = CLOSE_S if activity.state == "finishing" else FINISH_FRAME_S
        return now_s - self.since_s - (delay_s - self.delay_s) >= limit_s


def wait_for_stages(workers: Iterable[Worker]) -> None:
    """Wait, for FINISH_S at most, until every stage has ended, or hangs, or waits for a time-out of its own."""
    waiting, begin_s = [_Patience(worker) for worker in workers], time.monotonic()
    while waiting and (now_s := time.monotonic()) - begin_s < FINISH_S:
        waiting = [patience for patience in waiting if not patience.is_over(now_s, waited_s=now_s - begin_s)]
        if waiting:
            waiting[0].worker.thread.join(POLL_S)
