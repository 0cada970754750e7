"""Test that misbehaving clients do not slow the pipeline or other viewers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from stream_seg.runtime.graph import Graph
from stream_seg.stages.base import Context, Frames
from stream_seg.stages.serve import TOKEN_ENV, Serve
from stream_seg.telemetry.metrics import register
from stream_seg.web import mjpeg
from tests.support.fake_stages import make_config, make_node
from tests.support.flood import encode_request, is_closed, open_connection
from tests.support.frames import make_frame
from tests.support.page_client import make_segmented_frame, run_page, wait_for

TOKEN = "only for this test"
FLOOD = Path(__file__).parents[1] / "support" / "flood.py"
CALM_S, FLOOD_S = 3.0, 8.0
STALLED, SLOW = 20, 200


@dataclass
class Observer:
    """A well-behaved viewer, and the age of the frames at the page."""

    arrivals_s: list[float] = field(default_factory=list)
    ages: list[tuple[float, float]] = field(default_factory=list)
    """(time in seconds, age in milliseconds) of each frame."""

    def fps(self, since: float, until: float) -> float:
        return sum(since <= at < until for at in self.arrivals_s) / (until - since)

    def age_ms(self, since: float, until: float) -> float:
        return float(np.percentile([age for at, age in self.ages if since <= at < until], 95))

    def run(self, address: str, end: Event) -> None:
        url, headers = f"{address}/api/sources/camera/stream.mjpg?view=original", {"Authorization": f"Bearer {TOKEN}"}
        with httpx.Client(trust_env=False) as client, client.stream("GET", url, headers=headers) as answer:
            for chunk in answer.iter_raw():
                self.arrivals_s += [time.monotonic()] * chunk.count(b"Content-Type: image/jpeg")
                if end.is_set():
                    return


def generate_noise() -> Frames:
    """Yield 30 frames per second that JPEG cannot compress."""
    random = np.random.default_rng(1)
    images = [random.integers(0, 256, (240, 320, 3), np.uint8) for _ in range(8)]
    start_s = time.monotonic()
    for seq in range(10**6):
        time.sleep(max(0.0, start_s + seq / 30 - time.monotonic()))
        yield replace(make_frame(seq), image=images[seq % 8])


@pytest.fixture
def observed_page(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Observer]]:
    """Run a graph with a page and one viewer. Return the URL and the viewer."""
    monkeypatch.setenv(TOKEN_ENV, TOKEN)
    serve, messages, observer, end = Serve(port=0, max_clients=32), SimpleQueue[str](), Observer(), Event()

    def measure_age(frames: Frames) -> Frames:
        for shown in serve(frames):
            observer.ages.append((time.monotonic(), (time.monotonic_ns() - shown.captured_ns) / 1e6))
            yield shown

    nodes = [
        make_node("camera", "source", lambda _: generate_noise()),
        make_node("page", "output", measure_age, "camera"),
    ]
    graph = Graph(make_config(nodes, policy="latest"))
    register(graph)
    serve.context = Context(announce=messages.put, registry=graph.registry)
    with graph:
        address = messages.get(timeout=20).removeprefix("page at ")
        wait_for(lambda: httpx.get(f"{address}/readyz", trust_env=False).status_code == 200, 20)
        viewer = Thread(target=observer.run, args=(address, end))
        viewer.start()
        wait_for(lambda: bool(observer.arrivals_s), 20)
        yield address, observer
        end.set()
        viewer.join(5)


def flood(address: str, seconds: float) -> dict[str, Any]:
    """Flood the page for so many seconds and until every bad client is disconnected. Return the counts of flood.py."""
    command = [sys.executable, FLOOD, address.rpartition(":")[2], TOKEN, str(seconds), str(STALLED), str(SLOW)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_bad_clients_are_disconnected_and_others_are_served(observed_page: tuple[str, Observer]) -> None:
    address, observer = observed_page
    rss, arrivals = psutil.Process().memory_info().rss, len(observer.arrivals_s)
    report = flood(address, FLOOD_S)
    assert report["open_at_start"] == {"stalled": STALLED, "slow": SLOW}
    assert report["open_at_end"] == {"stalled": 0, "slow": 0}, report
    statuses = report["statuses"]
    assert set(statuses) == {"200", "401", "429"}
    assert statuses["200"] == statuses["401"] + statuses["429"]  # all metrics requests are answered
    assert len(observer.arrivals_s) > arrivals + FLOOD_S  # one image per second on the busiest machine
    assert psutil.Process().memory_info().rss - rss <= 64 * 2**20
    assert httpx.get(f"{address}/healthz", trust_env=False).status_code == 200


@pytest.mark.soak
def test_bad_clients_do_not_slow_the_pipeline(observed_page: tuple[str, Observer]) -> None:
    address, observer = observed_page
    calm_s = time.monotonic()
    time.sleep(CALM_S)  # the reference on this machine, with its current load
    flood_s = time.monotonic()
    report = flood(address, FLOOD_S)
    end_s = time.monotonic()
    figures = {
        "fps": (observer.fps(calm_s, flood_s), observer.fps(flood_s, end_s)),
        "age p95 ms": (observer.age_ms(calm_s, flood_s), observer.age_ms(flood_s, end_s)),
        **report,
    }
    print(figures)
    assert max(report["last_open_s"].values()) <= 6.5, figures
    assert figures["fps"][1] >= 0.9 * figures["fps"][0], figures
    assert figures["age p95 ms"][1] <= figures["age p95 ms"][0] + 10, figures


@pytest.mark.parametrize(("stall_s", "stays"), [(0.5, False), (3600.0, True)], ids=["limit", "no limit"])
def test_a_stalled_viewer_is_disconnected_by_the_time_limit(
    stall_s: float, stays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the limit, as a control, the viewer stays connected."""
    monkeypatch.setattr(mjpeg, "STALL_S", stall_s)
    random = np.random.default_rng(1)
    image = random.integers(0, 256, (480, 640, 3), np.uint8)
    with run_page() as page:
        page.put(replace(make_segmented_frame(0), image=image))
        port = int(page.url.rpartition(":")[2])
        with open_connection(port, encode_request("/api/sources/front/stream.mjpg?view=original", "")) as connection:
            end_s, seq = time.monotonic() + (4 if stays else 60), 0
            while not is_closed(connection) and time.monotonic() < end_s:
                seq += 1
                page.put(replace(make_segmented_frame(seq), image=np.roll(image, seq, axis=0)))
                time.sleep(1 / 30)
            assert is_closed(connection) is not stays
            assert page.get("/api/stats").json()["viewers"] == stays
