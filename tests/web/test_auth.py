"""Who may ask for what."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

from stream_seg.web.auth import COOKIE, FAILURES, FORGIVEN_S, SESSION_S, Bucket, TokenAuth
from stream_seg.web.hosts import known_host
from tests.support.page_client import Shown, segmented, shown

TOKEN = "canary-0123456789"
PLACES = ("/api/sources", "/metrics", "/api/view", "/api/openapi.json", "/api/sources/front/frame.jpg")


@pytest.fixture
def locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shown]:
    monkeypatch.delenv("STREAM_SEG_TOKEN", raising=False)
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    with shown(token_file=tmp_path / "token") as page:
        page.put(segmented(0))
        yield page


def test_without_the_token_only_health_and_the_login(locked: Shown) -> None:
    for path in PLACES:
        answer = locked.get(path)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert locked.get("/").headers["location"] == "/login"
    for path in ("/healthz", "/readyz", "/login", "/static/page.css"):
        assert locked.get(path).status_code == 200
    query = locked.get("/api/sources", params={"token": TOKEN})
    assert query.status_code == 401  # addresses are logged


def test_the_token_opens(locked: Shown) -> None:
    for path in PLACES:
        assert locked.get(path, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_nothing_of_the_pipeline_is_kept_by_a_browser(locked: Shown) -> None:
    for headers in ({}, {"Authorization": f"Bearer {TOKEN}"}):
        for path in PLACES:
            assert locked.get(path, headers=headers).headers["cache-control"] == "no-store"
    assert locked.get("/static/page.css").headers["cache-control"] == "no-cache"


def test_the_login_gives_a_cookie_no_script_can_read(locked: Shown) -> None:
    wrong = locked.http.post("/login", data={"token": "something else"})
    assert (wrong.status_code, wrong.headers["location"]) == (303, "/login?again=1")
    assert COOKIE not in wrong.cookies
    right = locked.http.post("/login", data={"token": TOKEN})
    assert (right.status_code, right.headers["location"]) == (303, "/")
    cookie = right.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    assert locked.get("/").status_code == locked.get("/api/sources").status_code == 200
    locked.http.cookies.clear()
    for forged in (right.cookies[COOKIE] + "0", "viewer.aw2RrQ.8hgDIJP8Nc2jmnMwgVbwU3QKJMY", "x", ""):
        assert locked.get("/api/sources", headers={"Cookie": f"{COOKIE}={forged}"}).status_code == 401


def test_wrong_tokens_are_limited_and_cheap(locked: Shown, caplog: pytest.LogCaptureFixture) -> None:
    session = locked.http.post("/login", data={"token": TOKEN}).cookies[COOKIE]
    locked.http.cookies.clear()
    caplog.set_level(logging.DEBUG)
    codes, took = [], []
    for number in range(60):
        began = time.perf_counter()
        codes.append(
            locked.get("/api/sources", headers={"Authorization": f"Bearer wrong {number} {TOKEN}"}).status_code
        )
        took.append(time.perf_counter() - began)
    assert codes[:FAILURES] == [401] * FAILURES
    assert codes[FAILURES + 2 :] == [429] * (len(codes) - FAILURES - 2)
    assert median(took) < 0.05  # with the client, on a busy machine
    assert locked.get("/api/sources", headers={"Cookie": f"{COOKIE}={session}"}).status_code == 200
    assert TOKEN not in caplog.text


def test_checking_a_token_takes_far_less_than_5_ms() -> None:
    door = TokenAuth(TOKEN)
    began = time.perf_counter()
    assert not any(door.is_valid(f"wrong {number}") for number in range(200))
    assert door.is_valid(TOKEN)
    assert (time.perf_counter() - began) / 201 < 0.005
    assert TokenAuth(None).is_valid("")


def test_sessions_end(monkeypatch: pytest.MonkeyPatch) -> None:
    door, other = TokenAuth(TOKEN), TokenAuth(TOKEN)
    assert door.is_session(door.create_session())
    assert not other.is_session(door.create_session())  # of another process
    session, now = door.create_session(), time.time()
    for age_s, valid in ((SESSION_S - 10, True), (SESSION_S + 10, False)):
        monkeypatch.setattr(time, "time", lambda age_s=age_s: now + age_s)
        assert door.is_session(session) is valid


def test_failures_are_forgiven_in_time_and_by_address() -> None:
    now = [0.0]
    bucket = Bucket(lambda: now[0])
    for _ in range(FAILURES):
        assert not bucket.retry_after_s("10.0.0.1")
        bucket.fail("10.0.0.1")
    assert bucket.retry_after_s("10.0.0.1") == pytest.approx(FORGIVEN_S / FAILURES)
    assert not bucket.retry_after_s("10.0.0.2")
    now[0] += FORGIVEN_S / FAILURES
    assert not bucket.retry_after_s("10.0.0.1")
    for number in range(FAILURES):
        bucket.fail(f"2001:db8:1:2::{number}")
    assert bucket.retry_after_s("2001:db8:1:2::ffff")
    assert not bucket.retry_after_s("2001:db8:1:3::1")
    for number in range(10_000):
        bucket.fail(str(number))
    assert len(bucket._level) <= 4096


@pytest.mark.parametrize(
    ("addresses", "other"),
    [
        ("2001:db8::{:x}", "2001:db8:0:1::1"),
        ("2001:db8:1:2::{:x}", "2001:db8:1:3::1"),
        ("2001:db8:0:0:{:x}::1", "2001:db8:0:1::1"),
        ("fe80::{:x}%eth0", "fe80:0:0:1::1%eth0"),
    ],
)
def test_of_ipv6_a_network_is_limited_as_one(addresses: str, other: str) -> None:
    bucket = Bucket(lambda: 0.0)
    for number in range(1, FAILURES + 1):
        assert not bucket.retry_after_s(addresses.format(number))
        bucket.fail(addresses.format(number))
    assert bucket.retry_after_s(addresses.format(0xFFFF))
    assert not bucket.retry_after_s(other)


def test_an_ipv4_address_is_the_same_over_ipv6() -> None:
    bucket = Bucket(lambda: 0.0)
    for _ in range(FAILURES):
        bucket.fail("::ffff:10.0.0.1")
    assert bucket.retry_after_s("10.0.0.1")
    assert not bucket.retry_after_s("::ffff:10.0.0.2")


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("127.0.0.1:8080", True),
        ("localhost:8080", True),
        ("[::1]:8080", True),
        ("192.168.1.7", True),
        ("Camera-Box:80", True),
        ("evil.example:8080", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("", False),
    ],
)
def test_foreign_names_are_refused(host: str, known: bool) -> None:
    assert known_host(host, ["camera-box"]) is known


def test_a_rebound_name_gets_nothing() -> None:
    with shown() as page:
        assert page.get("/", headers={"Host": "evil.example"}).status_code == 421
        assert page.get("/healthz", headers={"Host": "evil.example"}).status_code == 421


def test_other_sites_cannot_drive_or_frame_the_page() -> None:
    settings = {"opacity": 1, "hidden": []}
    with shown() as page:
        page.put(segmented(0))
        own = page.address
        for headers in (
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site", "Origin": own},
            {"Origin": own.replace("127.0.0.1", "localhost")},
        ):
            assert page.http.put("/api/view", json=settings, headers=headers).status_code == 403
        proxied = {"Origin": own.replace("http", "https")}  # TLS ends before the page
        for headers in ({}, {"Origin": own, "Sec-Fetch-Site": "same-origin"}, proxied):
            assert page.http.put("/api/view", json=settings, headers=headers).status_code == 200
        picture = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
        assert page.get("/api/sources/front/frame.jpg", headers=picture).status_code == 403
        frame = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}
        assert page.get("/", headers=frame).status_code == 403
        answer = page.get("/", headers={**frame, "Sec-Fetch-Dest": "document"})
        assert answer.status_code == 200  # a link to the page
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-frame-options"] == "DENY"
        assert "access-control-allow-origin" not in answer.headers
