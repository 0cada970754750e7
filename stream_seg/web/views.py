"""Build the API's answers from the page state and the metrics registry."""

from __future__ import annotations

from itertools import pairwise

from prometheus_client import CollectorRegistry

from stream_seg.ops.labels import class_shares
from stream_seg.web.schemas import Drops, Series, Source, SourceClass, SourceClasses, Stats
from stream_seg.web.state import PageState, StreamState

DROPPED = "stream_seg_dropped_frames_total"


def list_sources(state: PageState) -> list[Source]:
    """Return the state of every listed stream."""
    now_ns = state.clock()
    return [_describe_source(name, stream, now_ns) for name, stream in state.streams().items()]


def list_classes(state: PageState) -> list[SourceClasses]:
    """Return the classes of every stream with their share of its newest frame."""
    return [SourceClasses(id=name, classes=_measure_classes(stream)) for name, stream in state.streams().items()]


def list_class_names(state: PageState) -> list[str]:
    """Return the class names of all streams without duplicates."""
    semantics = [stream.semantic for stream in state.streams().values()]
    return list(dict.fromkeys(name for semantic in semantics if semantic for name in semantic.classes.names))


def collect_stats(state: PageState, registry: CollectorRegistry) -> Stats:
    """Return the charts' series and the drops per link of the graph. The page's own fields are left at 0."""
    now_s = state.clock() / 1e9
    series = [_collect_series(name, stream, now_s) for name, stream in state.streams().items()]
    samples = [sample for family in registry.collect() for sample in family.samples if sample.name == DROPPED]
    drops = [Drops(link=s.labels["link"], reason=s.labels["reason"], frames=int(s.value)) for s in samples]
    return Stats(viewers=0, max_viewers=0, login=False, series=series, drops=drops)


def _describe_source(name: str, stream: StreamState, now_ns: int) -> Source:
    (state, reason), measurement, frame = stream.state(now_ns), stream.measure(now_ns), stream.frame
    engine = stream.semantic.engine if stream.semantic else None
    return Source(
        id=name,
        state=state,
        reason=reason,
        placeholder=stream.signal is not None,
        since_s=round(stream.silent_s(now_ns), 3),
        seq=frame.seq,
        width=frame.image.shape[1],
        height=frame.image.shape[0],
        fps=round(measurement.fps, 2),
        age_ms=_round(measurement.age_ms),
        dropped=measurement.dropped,
        engine=f"{engine.network}, {engine.backend} {engine.precision} on {engine.device}" if engine else None,
    )


def _measure_classes(stream: StreamState) -> list[SourceClass]:
    if stream.semantic is None:
        return []
    classes = stream.semantic.classes
    semantic = stream.frame.semantic
    shares = class_shares(semantic.labels, classes).tolist() if semantic else [0.0] * len(classes)
    return [
        SourceClass(name=name, colour="#" + bytes(colour).hex(), share=round(share, 4))
        for name, colour, share in zip(classes.names, classes.colours, shares, strict=True)
    ]


def _collect_series(name: str, stream: StreamState, now_s: float) -> Series:
    history = tuple(stream.history)
    totals = [measurement.dropped for _, measurement in history]
    return Series(
        id=name,
        seconds_ago=[round(now_s - at_s, 1) for at_s, _ in history],
        fps=[round(measurement.fps, 2) for _, measurement in history],
        age_ms=[_round(measurement.age_ms) for _, measurement in history],
        dropped=[after - before for before, after in pairwise(totals[:1] + totals)],
    )


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
