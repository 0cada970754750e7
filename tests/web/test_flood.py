"""Viewers cannot slow the pipeline, however badly they behave."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread

import httpx
import numpy as np
import psutil
import pytest

from stream_seg.runtime.graph import Graph
from stream_seg.stages.base import Frames
from stream_seg.stages.serve import TOKEN_ENV, Serve
from stream_seg.telemetry.metrics import Metrics
from stream_seg.web import server
from stream_seg.web.mjpeg import Feeds
from tests.support.fake_stages import config, node
from tests.support.flood import closed, connected, request
from tests.support.frames import frame
from tests.support.page_client import segmented, shown

TOKEN = "only for this test"
FLOOD = Path(__file__).parents[1] / "support" / "flood.py"
CALM_S, FLOOD_S = 3.0, 8.0
STALLED, SLOW = 20, 200


@dataclass
class Watch:
    """One viewer that reads, and the age of the frames at the page: (moment, milliseconds)."""

    arrived: list[float] = field(default_factory=list)
    ages: list[tuple[float, float]] = field(default_factory=list)

    def fps(self, since: float, until: float) -> float:
        return sum(since <= at < until for at in self.arrived) / (until - since)

    def age_ms(self, since: float, until: float) -> float:
        return float(np.percentile([age for at, age in self.ages if since <= at < until], 95))

    def read(self, address: str, end: Event) -> None:
        url, headers = f"{address}/api/sources/camera/stream.mjpg?view=original", {"Authorization": f"Bearer {TOKEN}"}
        with httpx.Client(trust_env=False) as client, client.stream("GET", url, headers=headers) as answer:
            for chunk in answer.iter_raw():
                self.arrived += [time.monotonic()] * chunk.count(b"Content-Type: image/jpeg")
                if end.is_set():
                    return


def noise() -> Frames:
    """30 frames a second that JPEG cannot make small."""
    random = np.random.default_rng(1)
    pictures = [random.integers(0, 256, (240, 320, 3), np.uint8) for _ in range(8)]
    began = time.monotonic()
    for seq in range(10**6):
        time.sleep(max(0.0, began + seq / 30 - time.monotonic()))
        yield replace(frame(seq), image=pictures[seq % 8])


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Watch]]:
    """A running graph with a page, and one viewer of it."""
    monkeypatch.setenv(TOKEN_ENV, TOKEN)
    serve, addresses, watch, end = Serve(port=0, max_clients=32), SimpleQueue[str](), Watch(), Event()
    serve.announce = addresses.put

    def timed(frames: Frames) -> Frames:
        for given in serve(frames):
            watch.ages.append((time.monotonic(), (time.monotonic_ns() - given.captured_ns) / 1e6))
            yield given

    nodes = [node("camera", "synthetic", lambda _: noise()), node("page", "serve", timed, "camera")]
    graph = Graph(config(nodes, policy="latest"), live=True)
    serve.registry = Metrics(graph).registry
    with graph:
        address = addresses.get(timeout=20)
        deadline = time.monotonic() + 20
        while httpx.get(f"{address}/readyz", trust_env=False).status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        viewer = Thread(target=watch.read, args=(address, end))
        viewer.start()
        while not watch.arrived:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield address, watch
        end.set()
        viewer.join(5)


def test_bad_viewers_are_dropped_and_cost_the_others_nothing(watched: tuple[str, Watch]) -> None:
    address, watch = watched
    calm = time.monotonic()
    time.sleep(CALM_S)  # the measure of this machine, at this moment
    flood, rss = time.monotonic(), psutil.Process().memory_info().rss
    command = [sys.executable, FLOOD, address.rpartition(":")[2], TOKEN, str(FLOOD_S), str(STALLED), str(SLOW)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    after, grown = time.monotonic(), psutil.Process().memory_info().rss - rss
    said = json.loads(done.stdout)
    figures = {
        "fps": (watch.fps(calm, flood), watch.fps(flood, after)),
        "age p95 ms": (watch.age_ms(calm, flood), watch.age_ms(flood, after)),
        "grown MiB": grown / 2**20,
        **said,
    }
    print(figures)
    assert said["open_at_1s"] == {"stalled": STALLED, "slow": SLOW}, figures
    assert said["left"] == {"stalled": 0, "slow": 0}, figures
    assert said["last_open_s"]["stalled"] <= 6.5, figures
    assert said["last_open_s"]["slow"] <= 6.5, figures
    assert set(said["codes"]) == {"200", "401", "429"}, figures
    assert said["codes"]["200"] == said["codes"]["401"] + said["codes"]["429"], figures  # every scrape
    assert figures["fps"][1] >= 0.9 * figures["fps"][0], figures
    assert figures["age p95 ms"][1] <= figures["age p95 ms"][0] + 10, figures
    assert grown <= 64 * 2**20, figures
    assert httpx.get(f"{address}/healthz", trust_env=False).status_code == 200


@pytest.mark.parametrize(("stall_s", "stays"), [(0.5, False), (3600.0, True)], ids=["limit", "no limit"])
def test_it_is_the_time_limit_that_cuts_a_viewer_off(
    stall_s: float, stays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: without the limit, a viewer that reads nothing stays."""
    monkeypatch.setattr(server, "Feeds", partial(Feeds, stall_s=stall_s))
    random = np.random.default_rng(1)
    image = random.integers(0, 256, (480, 640, 3), np.uint8)
    with shown() as page:
        page.put(replace(segmented(0), image=image))
        port = int(page.address.rpartition(":")[2])
        with connected(port, request("/api/sources/front/stream.mjpg?view=original", "")) as link:
            end_s, seq = time.monotonic() + 4, 0
            while not closed(link) and time.monotonic() < end_s:
                seq += 1
                page.put(replace(segmented(seq), image=np.roll(image, seq, axis=0)))
                time.sleep(1 / 30)
            assert closed(link) is not stays
            assert page.get("/api/stats").json()["viewers"] == stays
