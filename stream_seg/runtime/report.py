"""The report of a run, as an object and as JSON with stable keys.

Percentiles are of the last 65,536 frames.
"""

from __future__ import annotations

import resource
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stream_seg.frame import EngineInfo
from stream_seg.runtime.graph import Graph
from stream_seg.runtime.histogram import Samples


@dataclass(frozen=True)
class FrameCounts:
    """Frames of a run."""

    captured: int
    """Images of all sources, including removed ones and images that a source could not deliver."""
    placeholders: int
    """Frames that sources drew in place of a missing image; every count of frames includes them."""
    written: int
    """Images finished by the output that finished the fewest."""
    by_output: dict[str, int]
    """Frames finished by each output; 0 for one that failed or did not finish."""
    dropped: dict[str, int]
    """Frames dropped by all sources and links, by reason; a graph with branches may drop a frame more than once."""


@dataclass(frozen=True)
class Percentiles:
    """Percentiles in milliseconds."""

    p50: float
    p99: float


@dataclass(frozen=True)
class StageTimes:
    """Frames of a stage and the time from taking to yielding each, in milliseconds, also of those taken ahead."""

    frames: int
    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Report:
    """Figures of a run."""

    frames: FrameCounts
    seconds: float
    """From start to end."""
    fps: float
    """From the first image written to the last."""
    stages: dict[str, StageTimes]
    age_ms: Percentiles
    """From the capture of a frame to the end of its output."""
    overhead_ms: Percentiles
    """The part of the age during which no stage had the frame."""
    first_frame_s: float | None
    """From the start of the graph to the first image written."""
    peak_rss_mib: float
    cpu_ms_per_frame: float | None
    """Of the whole process, from the first image written on."""
    engine: EngineInfo | None
    policy: str
    notes: list[str]
    """A line for each thing that a stage does without, because this system does not offer it."""
    error: str | None
    """None after a clean run."""

    @classmethod
    def of(cls, graph: Graph, *, seconds: float) -> Report:
        """Return the report of a graph that ran for `seconds`."""
        sources = [*(worker.totals() for worker in graph.workers if worker.is_source), *graph.removed]
        outputs = [worker for worker in graph.workers if worker.is_output]
        incomplete = {worker.node.name for worker in outputs if worker.failed or worker in graph.hanging()}
        dropped: Counter[str] = Counter()
        for totals in sources:
            dropped.update(totals.source.missed)
        for stats in graph.all_link_stats:
            dropped.update(stats.counts().dropped)
        slowest = min(outputs, key=lambda worker: worker.images, default=None)
        age, overhead = (slowest.age_ms, slowest.overhead_ms) if slowest else (Samples(), Samples())
        first_ns = slowest.first_ns if slowest else None
        cpu_ms = slowest.cpu_ms() if slowest else None
        by_output = {w.node.name: 0 if w.node.name in incomplete else w.yielded for w in outputs}
        return cls(
            frames=FrameCounts(
                captured=sum(totals.images + totals.source.missed.total() for totals in sources),
                placeholders=sum(totals.placeholders for totals in sources),
                written=min((0 if w.node.name in incomplete else w.images for w in outputs), default=0),
                by_output=by_output,
                dropped=dict(dropped),
            ),
            seconds=round(seconds, 3),
            fps=round(slowest.mean_fps() if slowest else 0.0, 2),
            stages={worker.node.name: _stage_times(worker.yielded, worker.duration_ms) for worker in graph.workers},
            age_ms=_percentiles(age),
            overhead_ms=_percentiles(overhead),
            first_frame_s=round((first_ns - graph.started_ns) / 1e9, 3) if first_ns is not None else None,
            peak_rss_mib=round(peak_rss_mib(), 1),
            cpu_ms_per_frame=round(cpu_ms, 2) if cpu_ms is not None else None,
            engine=next((engine for engine in graph.engines().values() if engine is not None), None),
            policy=graph.policy,
            notes=graph.notes,
            error=str(graph.error) if graph.error else None,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values; the keys are the names of the fields."""
        return asdict(self)


def peak_rss_mib() -> float:
    """Return the largest resident set of this process so far, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would include the parent's memory from before exec
        return float(status.read_text().partition("VmHWM:")[2].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _percentiles(samples: Samples) -> Percentiles:
    return Percentiles(_ms(samples, 50), _ms(samples, 99))


def _stage_times(frames: int, samples: Samples) -> StageTimes:
    return StageTimes(frames, _ms(samples, 50), _ms(samples, 95), _ms(samples, 99))


def _ms(samples: Samples, share: float) -> float:
    return round(samples.percentile(share), 3)
