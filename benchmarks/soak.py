"""Run two cameras, one absent for 5 s of every 30, and a page with three viewers, one of which reads nothing.

Prints memory, threads, open files and the age of the steady camera's frames for each minute. Exit code 1 if a limit is
exceeded. The cameras are RTSP servers of GStreamer, 320x240 at 30 frames/s; ages are those that the stage `records`
writes. Threads and files are medians of a minute, since a camera that disconnects has some fewer for a while.
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
from surroundings import JsonFile, describe_machine, figures_table, print_results, run_command

from stream_seg.errors import StreamSegError

UP_S, ABSENT_S = 25.0, 5.0
MINUTE_S = 60.0
START_TIMEOUT_S = 60.0
GRAPH = """
overwrite: true  # no time in the name of the records
stages:
  front: {{stage: capture, uri: "rtsp://127.0.0.1:{front}/live"}}
  rear: {{stage: capture, uri: "rtsp://127.0.0.1:{rear}/live"}}
  segment: {{input: [front, rear]}}
  smooth: {{input: segment}}
  serve: {{input: smooth, port: {page}}}
  records: {{input: smooth, path: {records}}}
"""
MAX_SLOPE_MB, MAX_DIFFERENCE, MAX_GROWTH_MS = 1.0, 2.0, 20.0
"""Limits: growth of memory per minute; threads and files, compared with the first minute after the warm-up; growth of
the frame age from the first half of the minutes to the second, as medians of the 99th percentiles."""


class Sample(NamedTuple):
    """Figures of the program, in seconds since it was ready."""

    at_s: float
    rss_mb: float
    threads: int
    files: int


def main(
    minutes: Annotated[float, typer.Option(min=0.2, help="Duration, including the warm-up.")] = 10.0,
    warm_up: Annotated[float, typer.Option(min=0, help="Minutes at the beginning to which no limit applies.")] = 2.0,
    json_file: JsonFile = None,
) -> None:
    """Run two cameras and a page for some minutes. Exit code 1 if a limit is exceeded."""
    facts: dict[str, Any] = {"machine": describe_machine(), "minutes": minutes, "warm_up": warm_up}
    with TemporaryDirectory() as folder:
        samples, dropped = run_cameras(Path(folder), minutes * MINUTE_S)
        ages = read_ages(Path(folder) / "o.jsonl")
    facts |= {"rows": make_rows(samples, ages), "viewers_dropped": dropped, "rss_slope_mb": fit_slope(samples, warm_up)}
    facts["faults"] = find_faults(facts["rows"], slope_mb=facts["rss_slope_mb"], warm_up=warm_up)
    table = figures_table("Two cameras, one absent at times, three viewers", *("minute", *HEADINGS))
    for row in facts["rows"]:
        table.add_row(str(row["minute"]), *(f"{row[key]:.1f}" for key in HEADINGS))
    print_results(facts, [table], json_file)
    print(
        f"memory {facts['rss_slope_mb']:+.2f} MB/min after {warm_up:g} min; {dropped} times a viewer was disconnected"
    )
    if facts["faults"]:
        sys.exit("soak.py: limits exceeded: " + "; ".join(facts["faults"]))


HEADINGS = ("rss_mb", "threads", "files", "frames", "age_p50_ms", "age_p99_ms")


def run_cameras(folder: Path, seconds: float) -> tuple[list[Sample], int]:
    """Return a sample per second, and the number of times that the viewer that reads nothing was disconnected.

    Raises StreamSegError if the program does not start, dies or ends with an error.
    """
    end, drops_s, page = Event(), list[float](), find_free_port()
    with ExitStack() as stack:
        front, _ = stack.enter_context(rtsp_camera())
        rear = find_free_port()
        places = {"front": front, "rear": rear, "page": page, "records": json.dumps(str(folder / "o.jsonl"))}
        (folder / "soak.yaml").write_text(GRAPH.format(**places), encoding="utf-8")
        program = stack.enter_context(start_program(folder / "soak.yaml"))
        jobs: list[Callable[[], None]] = [
            lambda: run_camera_at_times(rear, end),
            lambda: view(f"http://127.0.0.1:{page}/api/sources/front/stream.mjpg?view=overlay", end),
            lambda: view(f"http://127.0.0.1:{page}/api/sources/rear/stream.mjpg?view=mask", end),
            lambda: view_without_reading(page, end, drops_s),
        ]
        threads = [Thread(target=job) for job in jobs]
        wait_until_ready(page, program)
        for thread in threads:
            thread.start()
        try:
            samples = list(sample(program, seconds))
        finally:
            end.set()
            for thread in threads:
                thread.join()
        program.send_signal(signal.SIGTERM)
        if program.wait(10) != 0:
            raise StreamSegError(f"the program ended with exit code {program.returncode}")
    return samples, len(drops_s)


@contextmanager
def start_program(graph: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start `stream-seg run`, and kill it at the end. Its log is beside the graph file."""
    arguments = [sys.executable, "-m", "stream_seg", "run", "--quiet", "--config", str(graph)]
    log = graph.with_suffix(".log").open("wb")
    with log, subprocess.Popen(arguments, stderr=log) as program:
        try:
            yield program
        finally:
            program.kill()


def sample(program: subprocess.Popen[bytes], seconds: float) -> Iterator[Sample]:
    """Yield a sample per second. Raises StreamSegError if the program dies."""
    process, began_s = psutil.Process(program.pid), time.monotonic()
    while (at_s := time.monotonic() - began_s) < seconds:
        if program.poll() is not None:
            raise StreamSegError(f"the program ended with exit code {program.returncode} after {at_s:.0f} s")
        yield Sample(at_s, process.memory_info().rss / 1e6, process.num_threads(), process.num_fds())
        time.sleep(max(0.0, 1.0 - (time.monotonic() - began_s - at_s)))


def wait_until_ready(page: int, program: subprocess.Popen[bytes]) -> None:
    """Wait until a source is up. Raises StreamSegError if none is within START_TIMEOUT_S."""
    end_s = time.monotonic() + START_TIMEOUT_S
    while program.poll() is None and time.monotonic() < end_s:
        try:
            with urlopen(f"http://127.0.0.1:{page}/readyz", timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.1)
    raise StreamSegError(f"no camera is up after {START_TIMEOUT_S:g} s")


def run_camera_at_times(port: int, end: Event) -> None:
    """Run a camera that is killed again and again."""
    while not end.is_set():
        with rtsp_camera(port):
            end.wait(UP_S)
        end.wait(ABSENT_S)


def view(url: str, end: Event) -> None:
    """Read a live stream, and connect again if it ends."""
    while not end.is_set():
        try:
            with urlopen(url, timeout=5) as answer:
                while not end.is_set() and answer.read(65536):
                    pass
        except OSError:  # the source has no image yet, or the stream ended
            end.wait(0.5)


def view_without_reading(page: int, end: Event, drops_s: list[float]) -> None:
    """Request a live stream and read nothing, again and again. Append the time of each disconnection to `drops_s`."""
    while not end.is_set():
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
            connection.connect(("127.0.0.1", page))
            connection.sendall(b"GET /api/sources/front/stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
            while connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0 and not end.wait(0.1):
                pass
        if not end.is_set():
            drops_s.append(time.monotonic())


def read_ages(records: Path) -> dict[int, list[float]]:
    """Return the ages in milliseconds of the steady camera's frames, by minute of its timestamps."""
    ages: dict[int, list[float]] = {}
    for line in records.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if record["stream"] == "front" and "signal" not in record:
            ages.setdefault(int(record["pts_s"] / MINUTE_S), []).append(record["latency_ms"])
    return ages


def make_rows(samples: list[Sample], ages: dict[int, list[float]]) -> list[dict[str, float]]:
    """Return a row for every minute that has samples and ages."""
    rows = []
    for minute in sorted({int(sample.at_s / MINUTE_S) for sample in samples} & ages.keys()):
        _, rss, threads, files = np.median([s for s in samples if int(s.at_s / MINUTE_S) == minute], axis=0)
        p50, p99 = np.percentile(ages[minute], (50, 99))
        values = (rss, threads, files, len(ages[minute]), p50, p99)
        rows.append({"minute": minute, **{key: round(float(v), 2) for key, v in zip(HEADINGS, values, strict=True)}})
    return rows


def fit_slope(samples: list[Sample], warm_up: float) -> float:
    """Return the growth of memory after the warm-up in MB per minute, by least squares."""
    after = np.array([(s.at_s / MINUTE_S, s.rss_mb) for s in samples if s.at_s >= warm_up * MINUTE_S])
    if len(after) < 2:
        raise StreamSegError(f"nothing is left after a warm-up of {warm_up:g} minutes: increase --minutes")
    return round(float(np.polyfit(after[:, 0], after[:, 1], 1)[0]), 3)


def find_faults(rows: list[dict[str, float]], *, slope_mb: float, warm_up: float) -> list[str]:
    """Return a message for every limit that was exceeded."""
    after = [row for row in rows if row["minute"] >= warm_up] or rows
    faults = [f"memory grows by {slope_mb} MB per minute"] if slope_mb >= MAX_SLOPE_MB else []
    for key in ("threads", "files"):
        difference = max(abs(row[key] - after[0][key]) for row in after)
        faults += [f"{key} differ by {difference:g}"] if difference > MAX_DIFFERENCE else []
    half = len(after) // 2
    if half:
        early, late = (float(np.median([row["age_p99_ms"] for row in part])) for part in (after[:half], after[half:]))
        faults += [f"the age grows from {early:.1f} to {late:.1f} ms"] if late > early + MAX_GROWTH_MS else []
    return faults


def find_free_port() -> int:
    """Return a TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    run_command(main)
