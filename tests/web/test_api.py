"""Test the JSON API over a real server: answers, OpenAPI description, errors."""

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
from tests.support.frames import make_frame
from tests.support.page_client import PageClient, feed_frames, make_segmented_frame, run_page, wait_for


@pytest.fixture
def page() -> Iterator[PageClient]:
    with run_page(opacity=0.25, max_clients=2) as page:
        yield page


def decode_image(response: httpx.Response) -> np.ndarray:
    assert response.status_code == 200, response.text
    image = cv2.imdecode(np.frombuffer(response.content, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image


def test_health_and_readiness(page: PageClient) -> None:
    assert page.get("/healthz").status_code == 200
    assert page.get("/readyz").status_code == 503
    page.put(make_segmented_frame(0))
    assert page.get("/readyz").status_code == 200


def test_sources_and_classes(page: PageClient) -> None:
    assert page.get("/api/sources").json() == []
    page.put(make_segmented_frame(0, stream="a/b c"))
    page.put(make_frame(3, stream="plain"))
    wait_for(lambda: len(page.get("/api/sources").json()) == 2)  # answers are cached for 0.2 s
    first, second = page.get("/api/sources").json()
    assert (first["id"], first["state"], first["width"], first["height"]) == ("a/b c", "up", 160, 90)
    assert first["engine"] == "road, openvino int8 on CPU"
    assert (second["id"], second["seq"], second["engine"]) == ("plain", 3, None)
    classes = page.get("/api/classes").json()
    shares = {one["name"]: one["share"] for one in classes[0]["classes"] if one["share"]}
    assert shares == {"sky": pytest.approx(4 / 9, abs=1e-4), "road": pytest.approx(5 / 9, abs=1e-4)}
    assert classes[0]["classes"][0]["colour"] == "#808080"
    assert classes[1] == {"id": "plain", "classes": []}
    assert decode_image(page.get("/api/sources/a%2Fb%20c/snapshot.png?view=original")).shape == (90, 160, 3)


def test_classes_of_a_stream_without_labels_stay_with_a_share_of_0(page: PageClient) -> None:
    page.put(make_segmented_frame(0))
    page.put(make_frame(1, stream="front", size=(90, 160)))  # as while a camera is down
    classes = page.get("/api/classes").json()[0]["classes"]
    assert len(classes) == 11
    assert not any(one["share"] for one in classes)
    assert page.get("/api/sources").json()[0]["engine"] == "road, openvino int8 on CPU"
    assert page.http.put("/api/view", json={"opacity": 0.5, "hidden": ["sky"]}).status_code == 200


def test_settings_change_the_images(page: PageClient) -> None:
    page.put(make_segmented_frame(0, grey=100))
    assert page.get("/api/view").json() == {"opacity": 0.25, "hidden": []}
    quarter = decode_image(page.get("/api/sources/front/snapshot.png"))
    response = page.http.put("/api/view", json={"opacity": 1, "hidden": ["sky"]})
    assert response.json() == page.get("/api/view").json() == {"opacity": 1.0, "hidden": ["sky"]}
    full = decode_image(page.get("/api/sources/front/snapshot.png"))
    assert (full[10, 80] == 100).all()
    assert not (quarter[10, 80] == 100).all()
    assert full[80, 80].tolist() == [128, 64, 128]
    assert (decode_image(page.get("/api/sources/front/snapshot.png?view=original")) == 100).all()
    small = page.get("/api/sources/front/frame.jpg?width=80&view=mask")
    assert small.headers["content-type"] == "image/jpeg"
    assert decode_image(small).shape == (45, 80, 3)
    disposition = page.get("/api/sources/front/snapshot.png").headers["content-disposition"]
    assert disposition == 'attachment; filename="front_000000_overlay.png"'


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/api/sources/rear/frame.jpg", 404, "unknown source 'rear' (known: front)"),
        ("/api/sources/front/frame.jpg?view=depth", 422, "view: expected overlay, original, mask, got 'depth'"),
        ("/api/sources/front/frame.jpg?width=1", 422, "width: expected whole number from 16 to 4096, got '1'"),
        ("/api/sources/front/frame.jpg?width=²", 422, "width: expected whole number"),
        ("/static/../app.py", 404, "Not Found"),
        ("/api/nothing", 404, "Not Found"),
    ],
)
def test_errors_name_the_cause(page: PageClient, path: str, status: int, message: str) -> None:
    page.put(make_segmented_frame(0))
    response = page.get(path)
    assert response.status_code == status
    assert message in response.json()["error"]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"opacity": 2, "hidden": []}, 422, "opacity: expected number >= 0 and <= 1, got 2"),
        ({"opacity": 0.5, "hidden": ["lorry"]}, 422, "hidden: unknown class 'lorry' (known: sky, building"),
        ({"opacity": 0.5, "hidden": [], "more": 1}, 422, "unknown key 'more' (known: opacity, hidden)"),
        ("text", 422, "expected a mapping"),
        ({"opacity": 0.5, "hidden": ["x" * 70000]}, 413, "the body exceeds 65536 bytes"),
    ],
)
def test_invalid_settings_change_nothing(page: PageClient, body: Any, status: int, message: str) -> None:
    page.put(make_segmented_frame(0))
    response = page.http.put("/api/view", json=body)
    assert response.status_code == status
    assert message in response.json()["error"]
    assert page.get("/api/view").json() == {"opacity": 0.25, "hidden": []}
    form = page.http.put("/api/view", content=b'{"opacity": 1, "hidden": []}', headers={"Content-Type": "text/plain"})
    assert form.status_code == 400


def test_the_live_stream_sends_new_images(page: PageClient) -> None:
    url = "/api/sources/front/stream.mjpg?view=original"
    page.put(make_segmented_frame(0))
    with feed_frames(page), page.http.stream("GET", url) as response:
        assert response.headers["content-type"] == "multipart/x-mixed-replace; boundary=frame"
        text, greys = b"", set[int]()
        for chunk in response.iter_bytes():
            text += chunk
            greys = {
                int(cv2.imdecode(np.frombuffer(part.partition(b"\r\n\r\n")[2], np.uint8), 0).mean())
                for part in text.split(b"--frame\r\n")[1:-1]
            }
            if len(greys) >= 5:
                break
    wait_for(lambda: page.get("/api/stats").json()["viewers"] == 0)


def test_viewers_beyond_the_limit_get_503(page: PageClient) -> None:
    page.put(make_segmented_frame(0))
    url = "/api/sources/front/stream.mjpg"
    with page.http.stream("GET", url), page.http.stream("GET", url):
        wait_for(lambda: page.get("/api/stats").json()["viewers"] == 2)
        response = page.get(url)
        assert (response.status_code, response.headers["retry-after"]) == (503, "5")
        assert response.json() == {"error": "viewer limit reached (2); try again later"}
        assert page.get("/api/sources").status_code == 200
    wait_for(lambda: page.get("/api/stats").json()["viewers"] == 0)
    with page.http.stream("GET", url) as response:
        assert response.status_code == 200


def test_stats_include_the_series_and_the_drops_of_the_graph(page: PageClient) -> None:
    counter = Counter("stream_seg_dropped_frames", "Dropped frames.", ["link", "reason"], registry=page.registry)
    counter.labels("a->b", "superseded").inc(7)
    for seq in (0, 1, 4):
        page.put(make_segmented_frame(seq))
    wait_for(lambda: page.get("/api/stats").json()["series"][0]["dropped"][-1:] == [0])
    stats = page.get("/api/stats").json()
    assert stats["drops"] == [{"link": "a->b", "reason": "superseded", "frames": 7}]
    assert stats["max_viewers"] == 2
    series = stats["series"][0]
    assert len({len(series[key]) for key in ("seconds_ago", "fps", "age_ms", "dropped")}) == 1
    assert 'stream_seg_dropped_frames_total{link="a->b",reason="superseded"} 7.0' in page.get("/metrics").text


def test_metrics_come_in_the_format_that_the_scraper_accepts(page: PageClient) -> None:
    Counter("frames", "Frames.", registry=page.registry).inc(7)
    text = page.get("/metrics", headers={"Accept-Encoding": "identity"})
    assert text.headers["content-type"].startswith("text/plain; version=")
    assert "content-encoding" not in text.headers
    assert "\nframes_total 7.0\n" in text.text
    openmetrics = page.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert openmetrics.headers["content-encoding"] == "gzip"
    assert "\nframes_total 7.0\n" in openmetrics.text
    assert openmetrics.text.endswith("# EOF\n")
    odd = page.get("/metrics", headers={"Accept": "application/openmetrics-text; version=x"})
    assert odd.headers["content-type"].startswith("text/plain; version=")


def test_the_description_matches_the_server(page: PageClient) -> None:
    """All references resolve, all paths are served, and all answers match their schemas."""
    page.put(make_segmented_frame(0))
    description = page.get("/api/openapi.json").json()
    assert re.fullmatch(r"3\.1\.\d", description["openapi"])
    assert description["info"].keys() >= {"title", "version"}
    for name in re.findall(r"#/components/schemas/(\w+)", page.get("/api/openapi.json").text):
        assert name in description["components"]["schemas"]
    served = {
        "/api/sources": list[schemas.Source],
        "/api/classes": list[schemas.SourceClasses],
        "/api/stats": schemas.Stats,
        "/api/view": schemas.ViewSettings,
    }
    for path, operations in description["paths"].items():
        assert set(re.findall(r"\{(\w+)\}", path)) <= {p["name"] for p in operations["get"].get("parameters", [])}
        for operation in operations.values():
            assert operation["summary"]
            assert "200" in operation["responses"]
        kinds = operations["get"]["responses"]["200"]["content"]
        with page.http.stream("GET", path.replace("{id}", "front")) as response:
            assert response.status_code == 200
            assert response.headers["content-type"].partition(";")[0] in kinds
            if path in served:
                TypeAdapter(served[path]).validate_json(response.read(), extra="forbid")
    assert set(served) <= set(description["paths"])


def test_the_page_is_self_contained(page: PageClient) -> None:
    """No URL of another host, no inline script or style, and every file that is referenced is served."""
    texts = {path: page.get(path).text for path in ("/", "/login", *(f"/static/{name}" for name in FILES))}
    for path, text in texts.items():
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), path
        assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=", text), path
        for reference in re.findall(r'(?:src|href|from)[= ]"(/static/[^"]+)"', text):
            assert reference in texts, reference
    assert page.get("/static/page.js").headers["content-type"].startswith("text/javascript")
