"""Compare the pipeline's CPU time per frame with two typical loops.

All contenders run in one process, in turns (A B A B). Ours is the default preset in its graph, with legend, figures and
metrics, one image at a time. `naive` and `decent` (baselines.py) run the same weights in float32 in ONNX Runtime, on
one thread, and again with its default settings, whose idle threads spin: that CPU time is no merit of ours. CPU time is
that of all threads. A ratio is the median over the rounds of baseline / ours.

`cpu_ms`, `ratio`: frames from memory, nothing encoded. `cpu_ms_io`, `ratio_io`: a file in, an mp4 out; all contenders
use the project's own decoder and encoder, so only the work between them differs.
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
from baselines import Decent, Naive, extract_plain_onnx, make_stage, open_session, read_spec
from load import BusyOk, describe_load, mark_worthless, quiet_machine
from rich.table import Table
from stand_ins import WARM_UP_FRAMES, MemorySource, Stage, pass_through, run_graph, run_loop
from surroundings import (
    JsonFile,
    default_filters,
    describe_machine,
    figures_table,
    open_clip,
    print_results,
    run_command,
)

from stream_seg.engines.open import open_engine
from stream_seg.errors import SourceError, StreamSegError
from stream_seg.frame import Frame
from stream_seg.network.network import open_network
from stream_seg.ops.resize import resize_image
from stream_seg.stages.base import Context
from stream_seg.stages.capture import Capture
from stream_seg.stages.segment import Segment
from stream_seg.stages.smooth import Smooth
from stream_seg.stages.write import Write

Run: TypeAlias = Callable[[Stage, Stage], float]
"""Runs between a source and an output, and returns the CPU-ms per frame."""
LEAST_AGREEMENT = 0.97
LABELS = {
    "ours_unsmoothed": "ours without smooth",
    "decent_one_thread": "decent, one thread",
    "naive_one_thread": "naive, one thread",
    "decent": "decent, threads that spin",
    "naive": "naive, threads that spin",
}


def main(
    frames: Annotated[int, typer.Option(min=1, help="Frames measured per round.")] = 30,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of every contender.")] = 5,
    source: Annotated[Path | None, typer.Option("--input", help="A video instead of the synthetic one.")] = None,
    busy_ok: BusyOk = False,
    json_file: JsonFile = None,
) -> None:
    """Compare the pipeline's CPU time per frame with two typical loops. Exit code 1 if their labels differ."""
    facts: dict[str, Any] = {"machine": describe_machine()}
    network = open_network("road")
    plain, spec = extract_plain_onnx(network), read_spec(network)
    baselines: dict[str, Naive | Decent] = {}
    for suffix, threads in (("_one_thread", 1), ("", None)):
        run = open_session(plain, threads=threads)
        baselines |= {f"decent{suffix}": Decent(spec, run), f"naive{suffix}": Naive(spec, run)}
    contenders: dict[str, Run] = {"ours": run_preset, "ours_unsmoothed": run_unsmoothed}
    contenders |= {name: make_loop(make_stage(one)) for name, one in baselines.items()}
    with open_clip(source, size="1920x1080", frames=frames + WARM_UP_FRAMES) as path:
        decoded = list(islice(Capture(str(path))(iter(())), frames + WARM_UP_FRAMES))
        if len(decoded) <= WARM_UP_FRAMES:
            raise SourceError(
                f"{path}: {len(decoded)} frames; more than the {WARM_UP_FRAMES} of the warm-up are required"
            )
        facts |= compare_labels(decoded, baselines)
        with TemporaryDirectory() as folder, quiet_machine(busy_ok=busy_ok) as load:
            facts |= measure(contenders, lambda: MemorySource(decoded), pass_through, rounds=rounds, suffix="")
            sink = Write(Path(folder) / "out.mp4").bind(Context(recorded=True, overwrite=True))
            capture = Capture(str(path), frames=len(decoded))
            facts |= measure(contenders, lambda: capture, sink, rounds=rounds, suffix="_io")
            facts["cpu_ms"]["network"] = measure_network_ms(decoded)
    load.require_quiet()
    facts["load"] = describe_load([load])
    facts["network_share"] = round(facts["cpu_ms"]["network"] / facts["cpu_ms"]["ours"], 3)
    height, width = decoded[0].image.shape[:2]
    facts |= {"image": f"{width}x{height}", "frames": len(decoded) - WARM_UP_FRAMES, "rounds": rounds}
    print_results(facts, [make_table(facts)], json_file)
    if min(facts["agreement"].values()) < LEAST_AGREEMENT:
        raise StreamSegError(f"less than {LEAST_AGREEMENT:.0%} of the labels are equal: the comparison is meaningless")


def run_preset(source: Stage, sink: Stage) -> float:
    """Run the default preset between a source and an output, in its graph."""
    _, cpu_ms = run_graph(source, default_filters(), sink)
    return cpu_ms


def run_unsmoothed(source: Stage, sink: Stage) -> float:
    """Run the default preset without `smooth`, which does the same work as the loops."""
    stages = {name: stage for name, stage in default_filters().items() if name != "smooth"}
    _, cpu_ms = run_graph(source, stages, sink)
    return cpu_ms


def make_loop(baseline: Stage) -> Run:
    """Return a function that runs a baseline between a source and an output, in a plain loop."""
    return lambda source, sink: run_loop(source, {"baseline": baseline}, sink).read_ms()


def measure(
    contenders: Mapping[str, Run], source: Callable[[], Stage], sink: Stage, *, rounds: int, suffix: str
) -> dict[str, Any]:
    """Return the medians over rounds in which every contender runs once."""
    cpu_ms: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            cpu_ms[name].append(run(source(), sink))
    return {
        f"cpu_ms{suffix}": {name: round(median(values), 2) for name, values in cpu_ms.items()},
        f"ratio{suffix}": compute_ratios(cpu_ms, "ours"),
        f"ratio_same_work{suffix}": compute_ratios(cpu_ms, "ours_unsmoothed"),
    }


def compute_ratios(cpu_ms: Mapping[str, Sequence[float]], reference: str) -> dict[str, float]:
    """Return the CPU time of each loop relative to `reference`, as the median over rounds."""
    return {
        name: round(median(a / b for a, b in zip(values, cpu_ms[reference], strict=True)), 2)
        for name, values in cpu_ms.items()
        if not name.startswith("ours")
    }


def compare_labels(frames: Sequence[Frame], baselines: Mapping[str, Naive | Decent]) -> dict[str, Any]:
    """Return the share of pixels, at the network's size, where ours without smoothing and a baseline agree."""
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


def measure_network_ms(frames: Sequence[Frame]) -> float:
    """Return the CPU-ms of the engine alone, per image already at its size."""
    with open_engine(open_network("road")) as engine:
        images = [resize_image(frame.image, engine.spec.size)[None] for frame in frames]
        began_s = time.process_time()
        for image in images:
            engine.infer(image)
        return round(1000 * (time.process_time() - began_s) / len(images), 2)


def make_table(facts: dict[str, Any]) -> Table:
    """Return the figures as a table."""
    title = f"CPU-ms per frame, {facts['image']}, median of {facts['rounds']} rounds of {facts['frames']} frames"
    table = figures_table(
        title + mark_worthless(facts["load"]),
        "",
        "in memory",
        "ratio",
        "same work",
        "file to mp4",
        "ratio",
        "same labels",
    )
    engine = facts["engine"]
    for name in facts["cpu_ms_io"]:
        row = [f"ours, {engine['backend']} {engine['precision']}" if name == "ours" else LABELS.get(name, name)]
        for suffix, kinds in (("", ("ratio", "ratio_same_work")), ("_io", ("ratio",))):
            ratios = [facts[f"{kind}{suffix}"].get(name) for kind in kinds]
            row += [f"{facts[f'cpu_ms{suffix}'][name]:.1f}", *(f"{ratio:.1f} x" if ratio else "" for ratio in ratios)]
        agreement = facts["agreement"].get(name.removesuffix("_one_thread"))
        table.add_row(*row, f"{agreement:.1%}" if agreement else "")
    table.add_row(
        "of ours, the network", f"{facts['cpu_ms']['network']:.1f}", f"{facts['network_share']:.0%}", style="dim"
    )
    return table


if __name__ == "__main__":
    run_command(main)
