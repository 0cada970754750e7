"""Leave it running: two cameras, one away for 5 s of every 30, and a page with three viewers, one of which reads
nothing. Prints memory, threads, open files and the age of the good camera's frames by the minute; exit 1 past a limit.

The cameras are RTSP servers of GStreamer, 320x240 at 30 frames/s; the age is that in the `records` of an output.
Threads and files are medians of a minute, since a camera that goes takes some along and brings them back.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Annotated, Any, NamedTuple
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import psutil
import typer
from cameras import rtsp_camera
from surroundings import describe_machine, figures_table, print_results, run_command

from stream_seg.errors import StreamSegError

UP_S, AWAY_S = 25.0, 5.0
MINUTE_S = 60.0
START_S = 60.0
GRAPH = """
stages:
  front: {{stage: capture, uri: "rtsp://127.0.0.1:{front}/live"}}
  rear: {{stage: capture, uri: "rtsp://127.0.0.1:{rear}/live"}}
  segment: {{input: [front, rear]}}
  smooth: {{input: segment}}
  serve: {{input: smooth, port: {page}}}
  records: {{input: smooth, path: {records}}}
"""
SLOPE_MB, COUNT, AGE_MS = 1.0, 2.0, 20.0
"""At most so many MB more a minute; so many threads and files more or fewer than in the first minute after the warm-up;
so much more age in the second half of the minutes than in the first, by their medians of the 99th percentile."""


class Glance(NamedTuple):
    """The program at one moment, in seconds since it was ready."""

    at_s: float
    rss_mb: float
    threads: int
    files: int


def main(
    minutes: Annotated[float, typer.Option(min=0.2, help="How long, with the warm-up.")] = 10.0,
    warm_up: Annotated[float, typer.Option(min=0, help="Minutes at the beginning that no limit is for.")] = 2.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures as JSON.")] = None,
) -> None:
    """Leave it running for some minutes; exit 1 past a limit."""
    facts: dict[str, Any] = {"machine": describe_machine(), "minutes": minutes, "warm_up": warm_up}
    with TemporaryDirectory() as folder:
        glances, dropped = soaked(Path(folder), minutes * MINUTE_S)
        ages = ages_by_minute(Path(folder) / "o.jsonl")
    facts |= {"rows": rows(glances, ages), "viewers_dropped": dropped, "rss_slope_mb": slope(glances, warm_up)}
    facts["past"] = past(facts["rows"], slope_mb=facts["rss_slope_mb"], warm_up=warm_up)
    table = figures_table("Two cameras, one flapping, three viewers", *("minute", *HEADINGS))
    for row in facts["rows"]:
        table.add_row(str(row["minute"]), *(f"{row[key]:.1f}" for key in HEADINGS))
    print_results(facts, [table], json_file)
    print(
        f"memory {facts['rss_slope_mb']:+.2f} MB/min after {warm_up:g} min; the idle viewer was cut off {dropped} times"
    )
    if facts["past"]:
        sys.exit("soak.py: past its limits: " + "; ".join(facts["past"]))


HEADINGS = ("rss_mb", "threads", "files", "frames", "age_p50_ms", "age_p99_ms")


def soaked(folder: Path, seconds: float) -> tuple[list[Glance], int]:
    """A glance a second, and how often the viewer that reads nothing was cut off. Raises StreamSegError where the
    program does not start, dies or ends badly."""
    end, cuts, page = Event(), list[float](), free_port()
    with ExitStack() as stack:
        front, _ = stack.enter_context(rtsp_camera())
        rear = free_port()
        places = {"front": front, "rear": rear, "page": page, "records": json.dumps(str(folder / "o.jsonl"))}
        (folder / "soak.yaml").write_text(GRAPH.format(**places), encoding="utf-8")
        program = stack.enter_context(started(folder / "soak.yaml"))
        jobs: list[Callable[[], None]] = [
            lambda: flapping(rear, end),
            lambda: reading(f"http://127.0.0.1:{page}/api/sources/front/stream.mjpg?view=overlay", end),
            lambda: reading(f"http://127.0.0.1:{page}/api/sources/rear/stream.mjpg?view=mask", end),
            lambda: idling(page, end, cuts),
        ]
        threads = [Thread(target=job) for job in jobs]
        wait_until_ready(page, program)
        for thread in threads:
            thread.start()
        try:
            glances = list(watched(program, seconds))
        finally:
            end.set()
            for thread in threads:
                thread.join()
        program.send_signal(signal.SIGTERM)
        if program.wait(10) != 0:
            raise StreamSegError(f"the program ended with exit code {program.returncode}")
    return glances, len(cuts)


@contextmanager
def started(graph: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The main job as a program of its own, which says only errors."""
    arguments = [sys.executable, "-m", "stream_seg.cli.app", "run", "--quiet", "--config", str(graph)]
    log = graph.with_suffix(".log").open("wb")
    with log, subprocess.Popen(arguments, stderr=log) as program:
        try:
            yield program
        finally:
            program.kill()


def watched(program: subprocess.Popen[bytes], seconds: float) -> Iterator[Glance]:
    """A glance a second for so long. Raises StreamSegError where the program dies."""
    process, began_s = psutil.Process(program.pid), time.monotonic()
    while (at_s := time.monotonic() - began_s) < seconds:
        if program.poll() is not None:
            raise StreamSegError(f"the program ended with exit code {program.returncode} after {at_s:.0f} s")
        yield Glance(at_s, process.memory_info().rss / 1e6, process.num_threads(), process.num_fds())
        time.sleep(max(0.0, 1.0 - (time.monotonic() - began_s - at_s)))


def wait_until_ready(page: int, program: subprocess.Popen[bytes]) -> None:
    """Until a source is up. Raises StreamSegError where none is within a minute."""
    end_s = time.monotonic() + START_S
    while program.poll() is None and time.monotonic() < end_s:
        try:
            with urlopen(f"http://127.0.0.1:{page}/readyz", timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.1)
    raise StreamSegError("the program did not begin to show a camera")


def flapping(port: int, end: Event) -> None:
    """A camera that is killed again and again."""
    while not end.is_set():
        with rtsp_camera(port):
            end.wait(UP_S)
        end.wait(AWAY_S)


def reading(address: str, end: Event) -> None:
    """A viewer as it should be; it comes back where it is sent away."""
    while not end.is_set():
        try:
            with urlopen(address, timeout=5) as answer:
                while not end.is_set() and answer.read(65536):
                    pass
        except OSError:  # the stream is not there yet, or the picture stopped
            end.wait(0.5)


def idling(page: int, end: Event, cuts: list[float]) -> None:
    """A viewer that asks and reads nothing, and comes back when it has been cut off; notes each time."""
    while not end.is_set():
        with socket.socket() as link:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
            link.connect(("127.0.0.1", page))
            link.sendall(b"GET /api/sources/front/stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
            while link.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0 and not end.wait(0.1):
                pass
        if not end.is_set():
            cuts.append(time.monotonic())


def ages_by_minute(records: Path) -> dict[int, list[float]]:
    """Milliseconds of the good camera's frames, by the minute of its own time."""
    ages: dict[int, list[float]] = {}
    for line in records.read_text(encoding="utf-8").splitlines():
        said = json.loads(line)
        if said["stream"] == "front" and "signal" not in said:
            ages.setdefault(int(said["pts_s"] / MINUTE_S), []).append(said["latency_ms"])
    return ages


def rows(glances: list[Glance], ages: dict[int, list[float]]) -> list[dict[str, float]]:
    """A row for every minute that has both."""
    table = []
    for minute in sorted({int(glance.at_s / MINUTE_S) for glance in glances} & ages.keys()):
        _, rss, threads, files = np.median([g for g in glances if int(g.at_s / MINUTE_S) == minute], axis=0)
        p50, p99 = np.percentile(ages[minute], (50, 99))
        values = (rss, threads, files, len(ages[minute]), p50, p99)
        table.append({"minute": minute, **{key: round(float(v), 2) for key, v in zip(HEADINGS, values, strict=True)}})
    return table


def slope(glances: list[Glance], warm_up: float) -> float:
    """MB a minute after the warm-up, by least squares."""
    after = np.array([(g.at_s / MINUTE_S, g.rss_mb) for g in glances if g.at_s >= warm_up * MINUTE_S])
    if len(after) < 2:
        raise StreamSegError(f"nothing is left after a warm-up of {warm_up:g} minutes: take more --minutes")
    return round(float(np.polyfit(after[:, 0], after[:, 1], 1)[0]), 3)


def past(table: list[dict[str, float]], *, slope_mb: float, warm_up: float) -> list[str]:
    """Which limits were passed, in words."""
    after = [row for row in table if row["minute"] >= warm_up] or table
    said = [f"memory grows by {slope_mb} MB a minute"] if slope_mb >= SLOPE_MB else []
    for key in ("threads", "files"):
        most = max(abs(row[key] - after[0][key]) for row in after)
        said += [f"{key} differ by {most:g}"] if most > COUNT else []
    half = len(after) // 2
    if half:
        early, late = (float(np.median([row["age_p99_ms"] for row in part])) for part in (after[:half], after[half:]))
        said += [f"the age grows from {early:.1f} to {late:.1f} ms"] if late > early + AGE_MS else []
    return said


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    run_command(main)
