"""Test access control: tokens, sessions, host names, cross-site requests."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream_seg.web.access import DRAIN_S, MAX_FAILURES, FailureLimiter
from stream_seg.web.auth import COOKIE, SESSION_S, TokenAuth
from stream_seg.web.hosts import is_allowed_host
from tests.support.page_client import PageClient, make_segmented_frame, run_page
from tests.support.time_limits import TimeLimit

TOKEN = "canary-0123456789"
PATHS = ("/api/sources", "/metrics", "/api/view", "/api/openapi.json", "/api/sources/front/frame.jpg")


@pytest.fixture
def protected_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PageClient]:
    monkeypatch.delenv("STREAM_SEG_TOKEN", raising=False)
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    with run_page(token_file=tmp_path / "token") as page:
        page.put(make_segmented_frame(0))
        yield page


def test_without_a_token_only_health_and_login_are_served(protected_page: PageClient) -> None:
    for path in PATHS:
        response = protected_page.get(path)
        assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
    assert protected_page.get("/").headers["location"] == "/login"
    for path in ("/healthz", "/readyz", "/login", "/static/page.css"):
        assert protected_page.get(path).status_code == 200
    query = protected_page.get("/api/sources", params={"token": TOKEN})
    assert query.status_code == 401  # URLs end up in logs


def test_a_bearer_token_is_accepted(protected_page: PageClient) -> None:
    for path in PATHS:
        assert protected_page.get(path, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_browsers_do_not_cache_the_api(protected_page: PageClient) -> None:
    for headers in ({}, {"Authorization": f"Bearer {TOKEN}"}):
        for path in PATHS:
            assert protected_page.get(path, headers=headers).headers["cache-control"] == "no-store"
    assert protected_page.get("/static/page.css").headers["cache-control"] == "no-cache"


def test_login_sets_an_http_only_cookie(protected_page: PageClient) -> None:
    wrong = protected_page.http.post("/login", data={"token": "something else"})
    assert (wrong.status_code, wrong.headers["location"]) == (303, "/login?error=401")
    assert COOKIE not in wrong.cookies
    right = protected_page.http.post("/login", data={"token": TOKEN})
    assert (right.status_code, right.headers["location"]) == (303, "/")
    cookie = right.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    assert protected_page.get("/").status_code == protected_page.get("/api/sources").status_code == 200
    protected_page.http.cookies.clear()
    for forged in (right.cookies[COOKIE] + "0", "viewer.aw2RrQ.8hgDIJP8Nc2jmnMwgVbwU3QKJMY", "x", ""):
        assert protected_page.get("/api/sources", headers={"Cookie": f"{COOKIE}={forged}"}).status_code == 401


def test_invalid_tokens_are_limited_and_cheap(
    protected_page: PageClient, caplog: pytest.LogCaptureFixture, time_limit: TimeLimit
) -> None:
    session = protected_page.http.post("/login", data={"token": TOKEN}).cookies[COOKIE]
    protected_page.http.cookies.clear()
    caplog.set_level(logging.DEBUG)
    headers = [{"Authorization": f"Bearer wrong {number} {TOKEN}"} for number in range(60)]
    with time_limit(60 * 0.05):  # including the client
        statuses = [protected_page.get("/api/sources", headers=header).status_code for header in headers]
    assert statuses[:MAX_FAILURES] == [401] * MAX_FAILURES
    assert statuses[MAX_FAILURES + 2 :] == [429] * (len(statuses) - MAX_FAILURES - 2)
    assert protected_page.get("/api/sources", headers={"Cookie": f"{COOKIE}={session}"}).status_code == 200
    assert TOKEN not in caplog.text


def test_checking_a_token_takes_less_than_5_ms() -> None:
    auth = TokenAuth(TOKEN)
    start_s = time.thread_time()
    assert not any(auth.is_valid(f"wrong {number}") for number in range(200))
    assert auth.is_valid(TOKEN)
    assert (time.thread_time() - start_s) / 201 < 0.005
    assert TokenAuth(None).is_valid("")


def test_sessions_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    auth, other = TokenAuth(TOKEN), TokenAuth(TOKEN)
    assert auth.is_session(auth.create_session())
    assert not other.is_session(auth.create_session())  # of another process
    session, now = auth.create_session(), time.time()
    for age_s, valid in ((SESSION_S - 10, True), (SESSION_S + 10, False)):
        monkeypatch.setattr(time, "time", lambda age_s=age_s: now + age_s)
        assert auth.is_session(session) is valid


def test_failures_are_counted_per_address_and_expire() -> None:
    now = [0.0]
    limiter = FailureLimiter(lambda: now[0])
    for _ in range(MAX_FAILURES):
        assert not limiter.retry_after_s("10.0.0.1")
        limiter.add_failure("10.0.0.1")
    assert limiter.retry_after_s("10.0.0.1") == pytest.approx(DRAIN_S)
    assert not limiter.retry_after_s("10.0.0.2")
    now[0] += DRAIN_S
    assert not limiter.retry_after_s("10.0.0.1")
    for number in range(MAX_FAILURES):
        limiter.add_failure(f"2001:db8:1:2::{number}")
    assert limiter.retry_after_s("2001:db8:1:2::ffff")
    assert not limiter.retry_after_s("2001:db8:1:3::1")
    for number in range(10_000):
        limiter.add_failure(str(number))
    assert len(limiter._empty_s) <= 4096


@pytest.mark.parametrize(
    ("addresses", "other"),
    [
        ("2001:db8::{:x}", "2001:db8:0:1::1"),
        ("2001:db8:1:2::{:x}", "2001:db8:1:3::1"),
        ("2001:db8:0:0:{:x}::1", "2001:db8:0:1::1"),
        ("fe80::{:x}%eth0", "fe80:0:0:1::1%eth0"),
    ],
)
def test_an_ipv6_network_shares_one_limit(addresses: str, other: str) -> None:
    limiter = FailureLimiter(lambda: 0.0)
    for number in range(1, MAX_FAILURES + 1):
        assert not limiter.retry_after_s(addresses.format(number))
        limiter.add_failure(addresses.format(number))
    assert limiter.retry_after_s(addresses.format(0xFFFF))
    assert not limiter.retry_after_s(other)


def test_an_ipv4_mapped_address_counts_as_ipv4() -> None:
    limiter = FailureLimiter(lambda: 0.0)
    for _ in range(MAX_FAILURES):
        limiter.add_failure("::ffff:10.0.0.1")
    assert limiter.retry_after_s("10.0.0.1")
    assert not limiter.retry_after_s("::ffff:10.0.0.2")


@pytest.mark.parametrize(
    ("host", "allowed"),
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
def test_only_addresses_and_configured_names_are_allowed(host: str, allowed: bool) -> None:
    assert is_allowed_host(host, ["camera-box"]) is allowed


def test_foreign_host_names_are_rejected() -> None:
    with run_page() as page:
        assert page.get("/", headers={"Host": "evil.example"}).status_code == 421
        assert page.get("/healthz", headers={"Host": "evil.example"}).status_code == 421


def test_other_sites_cannot_control_or_frame_the_page() -> None:
    settings = {"opacity": 1, "hidden": []}
    with run_page() as page:
        page.put(make_segmented_frame(0))
        own = page.url
        for headers in (
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site", "Origin": own},
            {"Origin": own.replace("127.0.0.1", "localhost")},
        ):
            assert page.http.put("/api/view", json=settings, headers=headers).status_code == 403
        proxied = {"Origin": own.replace("http", "https")}  # TLS ends at a proxy
        for headers in ({}, {"Origin": own, "Sec-Fetch-Site": "same-origin"}, proxied):
            assert page.http.put("/api/view", json=settings, headers=headers).status_code == 200
        image = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
        assert page.get("/api/sources/front/frame.jpg", headers=image).status_code == 403
        frame = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}
        assert page.get("/", headers=frame).status_code == 403
        response = page.get("/", headers={**frame, "Sec-Fetch-Dest": "document"})
        assert response.status_code == 200  # a link to the page
        assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
        assert response.headers["x-frame-options"] == "DENY"
        assert "access-control-allow-origin" not in response.headers
