"""/healthz of the page and of the metrics server: the stages that hang, and to strangers only that one does."""

from __future__ import annotations

from threading import Thread

import httpx
import pytest
from prometheus_client import CollectorRegistry

from stream_seg.telemetry.server import MetricsServer
from stream_seg.web.health import answer_health
from tests.support.page_client import run_page

TOKEN = "a long secret"
LINE = "stage segment makes no progress: at frame front:3 for 8 s"


def test_answers() -> None:
    assert answer_health([], secret=False) == answer_health([], secret=True) == (200, "ok\n")
    assert answer_health([LINE, "another"], secret=False) == (503, f"{LINE}\nanother\n")
    status, text = answer_health([LINE], secret=True)
    assert status == 503
    assert "segment" not in text


@pytest.mark.parametrize("token", [None, TOKEN])
def test_of_the_metrics_server(token: str | None) -> None:
    stalls: list[str] = []
    server = MetricsServer("127.0.0.1", 0, CollectorRegistry(), token=token, stalls=lambda: stalls)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{server.server_port}", trust_env=False) as client:
            healthy = client.get("/healthz")
            assert (healthy.status_code, healthy.text) == (200, "ok\n")
            stalls.append(LINE)
            stalled = client.get("/healthz")
            assert (stalled.status_code, LINE in stalled.text) == (503, token is None)
            assert client.get("/metrics").status_code == (200 if token is None else 401)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("token", [None, TOKEN])
def test_of_the_page(token: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if token is not None:
        monkeypatch.setenv("STREAM_SEG_TOKEN", token)
    stalls: list[str] = []
    with run_page(stalls=lambda: stalls) as page:
        assert page.get("/healthz").status_code == 200
        stalls.append(LINE)
        stalled = page.get("/healthz")
        assert (stalled.status_code, LINE in stalled.text) == (503, token is None)
