"""CPU time per frame of the pipeline, against two loops as people write them.

Everything in one process, in turns (A B A B): ours is the default preset in its real graph, with legend, figures and
metrics; `naive` and `decent` (baselines.py) run the same weights in float32 in ONNX Runtime, as it is by default, and
once more on one thread, because by default its idle threads spin, which is CPU time too. CPU time is that of all
threads. A ratio is the median over the rounds of baseline / ours.

`cpu_ms`, `ratio`: frames from memory, nothing encoded. `cpu_ms_io`, `ratio_io`: a file in, an mp4 out; all are given
the project's own decoder and encoder, so that the work between is all that differs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any, TypeAlias

import numpy as np
import typer
from baselines import Decent, Naive, look, plain_onnx, session, stage
from rich.table import Table
from stand_ins import WARM_UP_FRAMES, Memory, Stage, composed, graphed, nothing
from surroundings import clip, command, figures, finish, machine, preset

from stream_seg.engines.open import open_engine
from stream_seg.errors import SourceError, StreamSegError
from stream_seg.frame import Frame
from stream_seg.network.network import open_network
from stream_seg.ops.resize import reduced
from stream_seg.stages.capture import Capture
from stream_seg.stages.segment import Segment
from stream_seg.stages.smooth import Smooth
from stream_seg.stages.write import Write

Run: TypeAlias = Callable[[Stage, Stage], float]
"""From a source and an output to CPU-ms per frame."""
LEAST_AGREEMENT = 0.97


def main(
    frames: Annotated[int, typer.Option(min=1, help="Frames measured per round.")] = 30,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of every contender.")] = 5,
    source: Annotated[Path | None, typer.Option("--input", help="A video instead of the drawn one.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures as JSON.")] = None,
) -> None:
    """CPU time per frame of the pipeline, against two loops as people write them. Exit code 1 where they disagree."""
    facts: dict[str, Any] = {"machine": machine()}
    network = open_network("road")
    plain, seen = plain_onnx(network), look(network)
    baselines: dict[str, Naive | Decent] = {}
    for suffix, threads in (("", None), ("_one_thread", 1)):
        run = session(plain, threads=threads)
        baselines |= {f"decent{suffix}": Decent(seen, run), f"naive{suffix}": Naive(seen, run)}
    contenders: dict[str, Run] = {"ours": ours, "ours_unsmoothed": unsmoothed}
    contenders |= {name: looped(stage(one)) for name, one in baselines.items()}
    with clip(source, size="1920x1080", frames=frames + WARM_UP_FRAMES) as path:
        decoded = list(islice(Capture(str(path))(iter(())), frames + WARM_UP_FRAMES))
        if len(decoded) <= WARM_UP_FRAMES:
            raise SourceError(
                f"{path}: {len(decoded)} frames; more than the {WARM_UP_FRAMES} of the warm-up are needed"
            )
        facts |= agreement(decoded, baselines)
        facts |= measured(contenders, lambda: Memory(decoded), nothing, rounds=rounds, suffix="")
        with TemporaryDirectory() as folder:
            sink = Write(Path(folder) / "out.mp4")
            capture = Capture(str(path), frames=len(decoded))
            facts |= measured(contenders, lambda: capture, sink, rounds=rounds, suffix="_io")
    facts["cpu_ms"]["network"] = network_ms(decoded)
    facts["network_share"] = round(facts["cpu_ms"]["network"] / facts["cpu_ms"]["ours"], 3)
    height, width = decoded[0].image.shape[:2]
    facts |= {"picture": f"{width}x{height}", "frames": len(decoded) - WARM_UP_FRAMES, "rounds": rounds}
    finish(facts, [table(facts)], json_file)
    if min(facts["agreement"].values()) < LEAST_AGREEMENT:
        raise StreamSegError(f"the label maps agree in less than {LEAST_AGREEMENT:.0%}: the comparison is worthless")


def ours(source: Stage, sink: Stage) -> float:
    """The default preset between a source and an output, in its graph."""
    _, cpu_ms = graphed(source, preset(), sink)
    return cpu_ms


def unsmoothed(source: Stage, sink: Stage) -> float:
    """The default preset without `smooth`: what the loops do, which look at every picture alone."""
    stages = {name: stage for name, stage in preset().items() if name != "smooth"}
    _, cpu_ms = graphed(source, stages, sink)
    return cpu_ms


def looped(baseline: Stage) -> Run:
    """A baseline between a source and an output, in a plain loop."""
    return lambda source, sink: composed(source, {"baseline": baseline}, sink).read_ms()


def measured(
    contenders: Mapping[str, Run], source: Callable[[], Stage], sink: Stage, *, rounds: int, suffix: str
) -> dict[str, Any]:
    """Medians over rounds in which every contender has its turn."""
    cpu_ms: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            cpu_ms[name].append(run(source(), sink))
    return {
        f"cpu_ms{suffix}": {name: round(median(values), 2) for name, values in cpu_ms.items()},
        f"ratio{suffix}": ratios(cpu_ms, "ours"),
        f"ratio_same_work{suffix}": ratios(cpu_ms, "ours_unsmoothed"),
    }


def ratios(cpu_ms: Mapping[str, Sequence[float]], mine: str) -> dict[str, float]:
    """How many times as much every loop takes as `mine`: the median over rounds."""
    return {
        name: round(median(a / b for a, b in zip(values, cpu_ms[mine], strict=True)), 2)
        for name, values in cpu_ms.items()
        if not name.startswith("ours")
    }


def agreement(frames: Sequence[Frame], baselines: Mapping[str, Naive | Decent]) -> dict[str, Any]:
    """The share of pixels, at the network's size, where ours, without a past, and a baseline say the same class."""
    same: dict[str, list[float]] = {"decent": [], "naive": []}
    for frame in Smooth(weight=0)(Segment()(iter(frames[:: max(1, len(frames) // 10)]))):
        assert frame.semantic is not None
        engine = frame.semantic.engine
        for name, values in same.items():
            values.append(float(np.mean(frame.semantic.labels == baselines[name].labels(frame.image))))
    return {
        "agreement": {name: round(float(np.mean(values)), 4) for name, values in same.items()},
        "engine": vars(engine),
    }


def network_ms(frames: Sequence[Frame]) -> float:
    """CPU-ms of the engine alone, for one picture at its own size."""
    with open_engine(open_network("road")) as engine:
        pictures = [reduced(frame.image, engine.spec.size)[None] for frame in frames]
        began_s = time.process_time()
        for picture in pictures:
            engine.infer(picture)
        return round(1000 * (time.process_time() - began_s) / len(pictures), 2)


def table(facts: dict[str, Any]) -> Table:
    """The figures for a reader."""
    title = f"CPU-ms per frame, {facts['picture']}, median of {facts['rounds']} rounds of {facts['frames']} frames"
    shown = figures(title, "", "in memory", "ratio", "same work", "file to mp4", "ratio", "same labels")
    engine = facts["engine"]
    for name in facts["cpu_ms_io"]:
        row = [f"ours, {engine['backend']} {engine['precision']}" if name == "ours" else name.replace("_", ", ", 1)]
        for suffix, kinds in (("", ("ratio", "ratio_same_work")), ("_io", ("ratio",))):
            found = [facts[f"{kind}{suffix}"].get(name) for kind in kinds]
            row += [f"{facts[f'cpu_ms{suffix}'][name]:.1f}", *(f"{ratio:.1f} x" if ratio else "" for ratio in found)]
        agreed = facts["agreement"].get(name)
        shown.add_row(row[0].replace("_", " "), *row[1:], f"{agreed:.1%}" if agreed else "")
    shown.add_row(
        "of ours, the network", f"{facts['cpu_ms']['network']:.1f}", f"{facts['network_share']:.0%}", style="dim"
    )
    return shown


if __name__ == "__main__":
    command(main)
