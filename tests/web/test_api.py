"""The API over a real server: its answers, its description, its refusals."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from prometheus_client import Counter
from pydantic import TypeAdapter

from stream_seg.web import schemas
from stream_seg.web.app import FILES
from tests.support.frames import frame
from tests.support.page_client import Shown, fed, segmented, shown, until


@pytest.fixture
def page() -> Iterator[Shown]:
    with shown(opacity=0.25, max_clients=2) as page:
        yield page


def decoded(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    picture = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return picture


def test_health_and_readiness(page: Shown) -> None:
    assert page.get("/healthz").status_code == 200
    assert page.get("/readyz").status_code == 503
    page.put(segmented(0))
    assert page.get("/readyz").status_code == 200


def test_sources_and_classes(page: Shown) -> None:
    assert page.get("/api/sources").json() == []
    page.put(segmented(0, stream="a/b c"))
    page.put(frame(3, stream="plain"))
    until(lambda: len(page.get("/api/sources").json()) == 2)  # an answer may be a fifth of a second old
    first, second = page.get("/api/sources").json()
    assert (first["id"], first["state"], first["width"], first["height"]) == ("a/b c", "up", 160, 90)
    assert first["engine"] == "road, openvino int8 on CPU"
    assert (second["id"], second["seq"], second["engine"]) == ("plain", 3, None)
    classes = page.get("/api/classes").json()
    shares = {one["name"]: one["share"] for one in classes[0]["classes"] if one["share"]}
    assert shares == {"sky": pytest.approx(4 / 9, abs=1e-4), "road": pytest.approx(5 / 9, abs=1e-4)}
    assert classes[0]["classes"][0]["colour"] == "#808080"
    assert classes[1] == {"id": "plain", "classes": []}
    assert decoded(page.get("/api/sources/a%2Fb%20c/snapshot.png?view=original")).shape == (90, 160, 3)


def test_without_a_picture_the_classes_stay_and_cover_nothing(page: Shown) -> None:
    page.put(segmented(0))
    page.put(frame(1, stream="front", size=(90, 160)))  # as from a camera that is away
    classes = page.get("/api/classes").json()[0]["classes"]
    assert len(classes) == 11
    assert not any(one["share"] for one in classes)
    assert page.get("/api/sources").json()[0]["engine"] == "road, openvino int8 on CPU"
    assert page.http.put("/api/view", json={"opacity": 0.5, "hidden": ["sky"]}).status_code == 200


def test_settings_change_the_pictures(page: Shown) -> None:
    page.put(segmented(0, grey=100))
    assert page.get("/api/view").json() == {"opacity": 0.25, "hidden": []}
    quarter = decoded(page.get("/api/sources/front/snapshot.png"))
    answer = page.http.put("/api/view", json={"opacity": 1, "hidden": ["sky"]})
    assert answer.json() == page.get("/api/view").json() == {"opacity": 1.0, "hidden": ["sky"]}
    full = decoded(page.get("/api/sources/front/snapshot.png"))
    assert (full[10, 80] == 100).all()
    assert not (quarter[10, 80] == 100).all()
    assert full[80, 80].tolist() == [128, 64, 128]
    assert (decoded(page.get("/api/sources/front/snapshot.png?view=original")) == 100).all()
    small = page.get("/api/sources/front/frame.jpg?width=80&view=mask")
    assert small.headers["content-type"] == "image/jpeg"
    assert decoded(small).shape == (45, 80, 3)
    named = page.get("/api/sources/front/snapshot.png").headers["content-disposition"]
    assert named == 'attachment; filename="front_000000_overlay.png"'


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/api/sources/rear/frame.jpg", 404, "no source 'rear'; the sources are front"),
        ("/api/sources/front/frame.jpg?view=depth", 422, "'depth' is not one of overlay, original, mask"),
        ("/api/sources/front/frame.jpg?width=1", 422, "no whole number from 16 to 4096"),
        ("/api/sources/front/frame.jpg?width=²", 422, "no whole number"),
        ("/static/../app.py", 404, "Not Found"),
        ("/api/nothing", 404, "Not Found"),
    ],
)
def test_what_is_not_there_is_said(page: Shown, path: str, status: int, said: str) -> None:
    page.put(segmented(0))
    answer = page.get(path)
    assert answer.status_code == status
    assert said in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"opacity": 2, "hidden": []}, 422, "opacity: "),
        ({"opacity": 0.5, "hidden": ["lorry"]}, 422, "unknown class 'lorry'; the classes are sky, building"),
        ({"opacity": 0.5, "hidden": [], "more": 1}, 422, "more: "),
        ("text", 422, ""),
        ({"opacity": 0.5, "hidden": ["x" * 70000]}, 413, "more than 65536 bytes"),
    ],
)
def test_bad_settings_change_nothing(page: Shown, body: Any, status: int, said: str) -> None:
    page.put(segmented(0))
    answer = page.http.put("/api/view", json=body)
    assert answer.status_code == status
    assert said in answer.json()["error"]
    assert page.get("/api/view").json() == {"opacity": 0.25, "hidden": []}
    form = page.http.put("/api/view", content=b'{"opacity": 1, "hidden": []}', headers={"Content-Type": "text/plain"})
    assert form.status_code == 400


def test_the_moving_picture_moves(page: Shown) -> None:
    url = "/api/sources/front/stream.mjpg?view=original"
    page.put(segmented(0))
    with fed(page), page.http.stream("GET", url) as answer:
        assert answer.headers["content-type"] == "multipart/x-mixed-replace; boundary=frame"
        text, greys = b"", set[int]()
        for chunk in answer.iter_bytes():
            text += chunk
            greys = {
                int(cv2.imdecode(np.frombuffer(part.partition(b"\r\n\r\n")[2], np.uint8), 0).mean())
                for part in text.split(b"--frame\r\n")[1:-1]
            }
            if len(greys) >= 5:
                break
    until(lambda: page.get("/api/stats").json()["viewers"] == 0)


def test_more_viewers_than_the_cap_get_503(page: Shown) -> None:
    page.put(segmented(0))
    url = "/api/sources/front/stream.mjpg"
    with page.http.stream("GET", url), page.http.stream("GET", url):
        until(lambda: page.get("/api/stats").json()["viewers"] == 2)
        answer = page.get(url)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert page.get("/api/sources").status_code == 200
    until(lambda: page.get("/api/stats").json()["viewers"] == 0)
    with page.http.stream("GET", url) as answer:
        assert answer.status_code == 200


def test_stats_have_the_charts_and_the_drops_of_the_graph(page: Shown) -> None:
    counter = Counter(
        "stream_seg_dropped_frames", "as the graph says it", ["link", "reason"], registry=page.stage.registry
    )
    counter.labels("a->b", "superseded").inc(7)
    for seq in (0, 1, 4):
        page.put(segmented(seq))
    until(lambda: page.get("/api/stats").json()["series"][0]["dropped"][-1:] == [0])
    stats = page.get("/api/stats").json()
    assert stats["drops"] == [{"link": "a->b", "reason": "superseded", "frames": 7}]
    assert stats["max_viewers"] == 2
    series = stats["series"][0]
    assert len({len(series[key]) for key in ("seconds_ago", "fps", "age_ms", "dropped")}) == 1
    assert 'stream_seg_dropped_frames_total{link="a->b",reason="superseded"} 7.0' in page.get("/metrics").text


def test_the_description_is_what_is_served(page: Shown) -> None:
    """Every reference leads somewhere, every path is served, every answer is as described; no library checks that."""
    page.put(segmented(0))
    said = page.get("/api/openapi.json").json()
    assert re.fullmatch(r"3\.1\.\d", said["openapi"])
    assert said["info"].keys() >= {"title", "version"}
    for name in re.findall(r"#/components/schemas/(\w+)", page.get("/api/openapi.json").text):
        assert name in said["components"]["schemas"]
    served = {
        "/api/sources": list[schemas.Source],
        "/api/classes": list[schemas.SourceClasses],
        "/api/stats": schemas.Stats,
        "/api/view": schemas.ViewSettings,
    }
    for path, operations in said["paths"].items():
        assert set(re.findall(r"\{(\w+)\}", path)) <= {p["name"] for p in operations["get"].get("parameters", [])}
        for operation in operations.values():
            assert operation["summary"]
            assert "200" in operation["responses"]
        kinds = operations["get"]["responses"]["200"]["content"]
        with page.http.stream("GET", path.replace("{id}", "front")) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].partition(";")[0] in kinds
            if path in served:
                TypeAdapter(served[path]).validate_json(answer.read(), extra="forbid")
    assert set(served) <= set(said["paths"])


def test_the_page_brings_everything_along(page: Shown) -> None:
    """No address of another machine, no inline script or style, nothing asked for that is not served."""
    texts = {path: page.get(path).text for path in ("/", "/login", *(f"/static/{name}" for name in FILES))}
    for path, text in texts.items():
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), path
        assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=", text), path
        for asked in re.findall(r'(?:src|href|from)[= ]"(/static/[^"]+)"', text):
            assert asked in texts, asked
    assert page.get("/static/page.js").headers["content-type"].startswith("text/javascript")
