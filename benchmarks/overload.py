"""Measure live sources that deliver more than the machine can segment, each row in a new process.

* `half`, `double`: one source at half and at twice the frames/s that a recording of the same clip reaches
* `two`, `four`, `eight`: so many sources at 30 frames/s, of which two cores can barely decode eight

The sources are a clip of 1920x1080 that is played in a loop, which counts as live; the graph is the default one with an
output that does nothing. `loop_...` is the loop of expert.py with a thread for each camera that keeps its newest image
(without smoothing, legend and figures). The rows take turns (A B A B).

* `fps`: frames/s of all sources together; `cpu_ms`: CPU time of the process, all threads, by frame
* `least`, `most`: frames/s of the source that got the fewest and of the one that got the most
* `pause_s`: longest time without a frame of one source
* `age_p50_ms`, `age_p95_ms`: age of frames when the output has them
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import av
import typer
from live_rows import run_graph, run_loop, run_recording
from load import BusyOk, Load, describe_load, measure_quietly
from processes import call_in_process
from rich.table import Table
from surroundings import JsonFile, describe_machine, figures_table, open_clip, print_results, run_command

from stream_seg.errors import StreamSegError

RATE = 30.0
"""Frames/s of each of several sources."""
SOURCES = {"half": 1, "double": 1, "two": 2, "four": 4, "eight": 8}
COLUMNS = {"fps": 1, "cpu_ms": 1, "least": 1, "most": 1, "pause_s": 2, "age_p50_ms": 0, "age_p95_ms": 0}
"""Figures of a row, and their decimals."""
LEAST_OF_TWO = {"four": 1.0, "eight": 0.65}
"""Least frames/s, as a share of those of two sources."""
LONGEST_PAUSE_S, WIDEST_SHARES = 1.0, 1.5
"""Of a source, and most / least."""
MOST_AGE_MS = 100.0
"""Largest median age, beyond the time in which every source gets a frame."""
MOST_AGED = 1.5
"""Largest median age of `double`, as a share of that of `half`."""


def main(
    seconds: Annotated[float, typer.Option(min=1, help="Seconds measured of each row.")] = 8.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of every row.")] = 3,
    frames: Annotated[int, typer.Option(min=30, help="Frames of the synthetic clip.")] = 150,
    requests: Annotated[int | None, typer.Option(min=1, help="segment.requests; none: its default.")] = None,
    loop: Annotated[bool, typer.Option(help="Measure the loop too.")] = True,
    source: Annotated[Path | None, typer.Option("--input", help="A video instead of the synthetic one.")] = None,
    busy_ok: BusyOk = False,
    json_file: JsonFile = None,
) -> None:
    """Measure live sources under overload. Exit code 1 if a limit is exceeded."""
    facts: dict[str, Any] = {"machine": describe_machine(), "rounds": rounds, "seconds": seconds, "requests": requests}
    rows: dict[str, list[dict[str, float]]] = {}
    loads: list[Load] = []

    def measure(run: Callable[..., dict[str, float]], clip: Path, **keys: float | None) -> dict[str, float]:
        figures, load = measure_quietly(partial(call_in_process, partial(run, **keys), clip), busy_ok=busy_ok)
        loads.append(load)
        return figures

    with open_clip(source, size="1920x1080", frames=frames) as clip, TemporaryDirectory() as folder:
        fps = measure(run_recording, clip)["fps"]
        rates = {"half": fps / 2, "double": 2 * fps}
        clips = {name: retime(clip, Path(folder) / f"{name}.mp4", rates.get(name, RATE)) for name in SOURCES}
        for _ in range(rounds):
            for name, count in SOURCES.items():
                figures = measure(run_graph, clips[name], count=count, seconds=seconds, requests=requests)
                rows.setdefault(name, []).append(figures)
                if loop:
                    figures = measure(run_loop, clips[name], count=count, seconds=seconds)
                    rows.setdefault(f"loop_{name}", []).append(figures)
    medians = {name: {key: median(row[key] for row in of_name) for key in COLUMNS} for name, of_name in rows.items()}
    facts |= {"recording_fps": round(fps, 2), "rows": {name: summarize(of_name) for name, of_name in rows.items()}}
    facts |= {"load": describe_load(loads), "exceeded": find_exceeded(medians)}
    print_results(facts, [make_table(facts)], json_file)
    if facts["exceeded"]:
        raise StreamSegError("; ".join(facts["exceeded"]))


def retime(clip: Path, path: Path, rate: float) -> Path:
    """Write the packets of a clip to a file of `rate` frames/s, as they are."""
    with av.open(str(clip)) as source, av.open(str(path), "w") as target:
        video = source.streams.video[0]
        if not video.average_rate or not video.time_base:
            raise StreamSegError(f"{clip}: has no frame rate")
        tick = video.time_base * video.average_rate / Fraction(rate).limit_denominator(1000)
        stream = target.add_stream_from_template(video)
        for packet in source.demux(video):
            if packet.size:
                packet.time_base, packet.stream = tick, stream
                target.mux(packet)
    return path


def summarize(rows: list[dict[str, float]]) -> dict[str, list[float]]:
    """Return [median, least, most] of each figure over the rounds."""
    columns = {key: [row[key] for row in rows] for key in COLUMNS}
    return {key: [round(pick(values), 3) for pick in (median, min, max)] for key, values in columns.items()}


def find_exceeded(medians: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return a line for each limit that the graph exceeds."""
    exceeded = []
    for name, share in LEAST_OF_TWO.items():
        reached = medians[name]["fps"] / medians["two"]["fps"]
        if reached < share:
            exceeded.append(f"{name}: {reached:.2f} x the frames/s of two, at least {share:g} x is expected")
    for name, count in SOURCES.items():
        row = medians[name]
        most_ms = 1000 * count / row["fps"] + MOST_AGE_MS
        if row["age_p50_ms"] > most_ms:
            exceeded.append(f"{name}: the median age is {row['age_p50_ms']:.0f} ms, at most {most_ms:.0f} is expected")
        if row["pause_s"] > LONGEST_PAUSE_S:
            exceeded.append(f"{name}: a source had no frame for {row['pause_s']:.2f} s")
        if row["most"] > WIDEST_SHARES * row["least"]:
            exceeded.append(f"{name}: a source got {row['most'] / row['least']:.1f} x the frames of another")
    aged = medians["double"]["age_p50_ms"] / medians["half"]["age_p50_ms"]
    if aged > MOST_AGED:
        exceeded.append(f"double: the median age is {aged:.2f} x that of half, at most {MOST_AGED:g} x is expected")
    return exceeded


def make_table(facts: dict[str, Any]) -> Table:
    """Return the medians as a table, with the range of the frames/s."""
    title = (
        f"live sources of 1920x1080, median of {facts['rounds']} rounds of {facts['seconds']:g} s; "
        f"a recording: {facts['recording_fps']:.1f} frames/s"
    )
    headings = "frames/s", "range", "CPU-ms", "least", "most", "pause s", "age p50 ms", "p95 ms"
    table = figures_table(title, "sources", *headings)
    for name, row in facts["rows"].items():
        cells = [f"{row[key][0]:.{decimals}f}" for key, decimals in COLUMNS.items()]
        cells.insert(1, f"{row['fps'][1]:.1f}-{row['fps'][2]:.1f}")
        table.add_row(name.replace("_", ", "), *cells, style="dim" if name.startswith("loop") else None)
    return table


if __name__ == "__main__":
    run_command(main)
