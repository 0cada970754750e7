"""Compare the pipeline with the loop of an expert, and with the bare limit of the machine.

Every run is a new process. The contenders take turns (A B A B), on the same frames of the same clip. Frames per second
and CPU time, of all threads, are from the tenth frame that leaves to the last one. A ratio is the median of the ratios
of all rounds. Other programs are watched before and during every run: see load.py.

* `ours`: the default graph without `smooth`, legend and figures, every frame through the network: the expert's work.
* `ours_default`: the default graph.
* `expert`: expert.py, with INTER_LINEAR; from 1080 rows on also with INTER_AREA, and the faster one counts.
* `expert_plus`: the same loop with tricks of the pipeline.
* `decent`, `naive`: the loops of baselines.py on one thread, with fewer frames.
* The bare limit: the CPU time of decoding, the network and encoding, each alone, added and spread over all cores.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import av
import typer
from compare_figures import HEADLINES, check_floors, make_tables, summarize_row
from load import BusyOk, Load, describe_load, measure_quietly
from race import BASELINES, Row, Run, run_contender, run_measurement
from surroundings import JsonFile, describe_machine, open_clip, print_results, run_command

from stream_seg.errors import StreamSegError

ROWS = [Row(size, encoded) for size in ("960x540", "1920x1080") for encoded in (True, False)]
SIZES = [Row(size, False) for size in ("640x360", "960x540", "1280x720", "1920x1080", "2560x1440", "3840x2160")]
FRAMES, FRAMES_OF_SIZES, FRAMES_OF_LIMITS = 240, 90, 60
LEAST_AGREEMENT = 0.97

T = TypeVar("T")


def main(
    frames: Annotated[int | None, typer.Option(min=3, help="Frames per run; none: 240, with --sizes 90.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of every contender.")] = 5,
    sizes: Annotated[bool, typer.Option("--sizes", help="Sizes from 360p to 4K, not encoded, instead.")] = False,
    source: Annotated[Path | None, typer.Option("--input", help="A video instead of synthetic clips.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit code 1 if a floor is missed.")] = False,
    busy_ok: BusyOk = False,
    json_file: JsonFile = None,
) -> None:
    """Compare the pipeline with the loop of an expert. Exit code 1 if their labels differ, or on a busy machine."""
    if check and busy_ok:
        raise StreamSegError("--check judges the figures, and with --busy-ok they are worth nothing; omit one of them")
    if check and sizes:
        raise StreamSegError("--check: no floor refers to the rows of --sizes; omit one of them")
    frames = frames or (FRAMES_OF_SIZES if sizes else FRAMES)
    rows = SIZES if sizes else ROWS
    if source is not None:
        rows = [Row(read_size(source), encoded) for encoded in (True, False)]
    facts: dict[str, Any] = {"machine": describe_machine(), "frames": frames, "rounds": rounds}
    facts["input"] = str(source) if source else "synth://road"
    loads: list[Load] = []

    def measure(work: Callable[[], T]) -> T:
        result, load = measure_quietly(work, busy_ok=busy_ok)
        loads.append(load)
        return result

    with ExitStack() as resources:
        clips = {
            size: resources.enter_context(open_clip(source, size=size, frames=frames))
            for size in dict.fromkeys(row.size for row in rows)
        }
        facts["agreement"] = {size: compare_labels(clip, frames) for size, clip in clips.items()}
        facts["rows"] = run_rounds(rows, clips, frames=frames, rounds=rounds, measure=measure)
    facts["load"] = describe_load(loads)
    facts["floors"] = [] if sizes else check_floors(facts["rows"])
    print_results(facts, make_tables(facts), json_file)
    if check and not all(floor["met"] for floor in facts["floors"]):
        raise StreamSegError("a floor is missed")


def read_size(clip: Path) -> str:
    """Return WIDTHxHEIGHT of a video."""
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        return f"{stream.width}x{stream.height}"


def compare_labels(clip: Path, frames: int) -> float:
    """Return the share of pixels with the same class from pipeline and expert. Raises StreamSegError below 97 %."""
    share = run_measurement("agreement", clip, frames=frames)["agreement"]
    if share < LEAST_AGREEMENT:
        raise StreamSegError(
            f"only {share:.1%} of the labels are equal, expected {LEAST_AGREEMENT:.0%}: the comparison is meaningless"
        )
    return share


def run_rounds(
    rows: list[Row], clips: Mapping[str, Path], *, frames: int, rounds: int, measure: Callable[[Callable[[], Any]], Any]
) -> dict[str, Any]:
    """Return the figures of each row, of rounds in which every contender runs once."""
    runs: dict[Row, dict[str, list[Run]]] = {row: {name: [] for name in name_contenders(row)} for row in rows}
    limits: dict[str, list[dict[str, float]]] = {size: [] for size in clips}
    run_contender("ours_default", clips[rows[0].size], frames=3, encoded=rows[0].encoded)  # fills caches
    for number in range(1, rounds + 1):
        for row in rows:
            for name, done in runs[row].items():
                run = partial(run_contender, name, clips[row.size], frames=frames, encoded=row.encoded)
                done.append(measure(run))
            rates = ", ".join(f"{name} {done[-1].fps:.1f}" for name, done in runs[row].items())
            print(f"round {number}/{rounds}, {row.title}, frames/s: {rates}", file=sys.stderr)
        for size, clip in clips.items():
            parts = partial(run_measurement, "limits", clip, frames=min(frames, FRAMES_OF_LIMITS))
            limits[size].append(measure(parts))
    return {row.title: summarize_row(row, runs[row], limits[row.size]) for row in rows}


def name_contenders(row: Row) -> list[str]:
    """Return the contenders of a row, in the order of their runs."""
    return ["ours", "ours_default", *row.experts, "expert_plus", *(BASELINES if row.title in HEADLINES else ())]


if __name__ == "__main__":
    run_command(main)
