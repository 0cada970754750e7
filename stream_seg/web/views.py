"""The board and the metrics as the API says them."""

from __future__ import annotations

from itertools import pairwise

from prometheus_client import CollectorRegistry

from stream_seg.ops.labels import class_shares
from stream_seg.web.schemas import Drops, Series, Source, SourceClass, SourceClasses, Stats
from stream_seg.web.state import Board, Stream

DROPPED = "stream_seg_dropped_frames_total"


def sources(board: Board) -> list[Source]:
    """Every stream that is listed."""
    now_ns = board.clock()
    return [_source(name, stream, now_ns) for name, stream in board.streams().items()]


def _source(name: str, stream: Stream, now_ns: int) -> Source:
    (state, reason), reading, frame = stream.state(now_ns), stream.reading(now_ns), stream.frame
    engine = stream.semantic.engine if stream.semantic else None
    return Source(
        id=name,
        state=state,
        reason=reason,
        card=stream.signal is not None,
        since_s=round(stream.silent_s(now_ns), 3),
        seq=frame.seq,
        width=frame.image.shape[1],
        height=frame.image.shape[0],
        fps=round(reading.fps, 2),
        age_ms=_rounded(reading.age_ms),
        dropped=reading.dropped,
        engine=f"{engine.network}, {engine.backend} {engine.precision} on {engine.device}" if engine else None,
    )


def classes(board: Board) -> list[SourceClasses]:
    """The classes of every stream, and how much of its newest frame they cover."""
    return [SourceClasses(id=name, classes=_classes(stream)) for name, stream in board.streams().items()]


def _classes(stream: Stream) -> list[SourceClass]:
    if stream.semantic is None:
        return []
    classes = stream.semantic.classes
    semantic = stream.frame.semantic
    shares = class_shares(semantic.labels, classes).tolist() if semantic else [0.0] * len(classes)
    named = zip(classes.names, classes.colours, shares, strict=True)
    return [
        SourceClass(name=name, colour="#" + bytes(colour).hex(), share=round(share, 4)) for name, colour, share in named
    ]


def class_names(board: Board) -> list[str]:
    """The names of all classes of all streams, each once."""
    semantics = [stream.semantic for stream in board.streams().values()]
    return list(dict.fromkeys(name for semantic in semantics if semantic for name in semantic.classes.names))


def stats(board: Board, registry: CollectorRegistry) -> Stats:
    """The charts, and what the links of the graph dropped."""
    now_s = board.clock() / 1e9
    series = [_series(name, stream, now_s) for name, stream in board.streams().items()]
    samples = [sample for family in registry.collect() for sample in family.samples if sample.name == DROPPED]
    drops = [Drops(link=s.labels["link"], reason=s.labels["reason"], frames=int(s.value)) for s in samples]
    return Stats(viewers=0, max_viewers=0, login=False, series=series, drops=drops)


def _series(name: str, stream: Stream, now_s: float) -> Series:
    history = tuple(stream.history)
    totals = [reading.dropped for _, reading in history]
    return Series(
        id=name,
        seconds_ago=[round(now_s - at, 1) for at, _ in history],
        fps=[round(reading.fps, 2) for _, reading in history],
        age_ms=[_rounded(reading.age_ms) for _, reading in history],
        dropped=[after - before for before, after in pairwise(totals[:1] + totals)],
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
