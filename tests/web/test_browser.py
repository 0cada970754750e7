"""Test the page in Chromium: images, charts, controls, keyboard, states."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from stream_seg.datasets.palettes import CAMVID
from stream_seg.frame import Signal, Temporal
from stream_seg.web.app import STATIC
from tests.support.frames import make_frame
from tests.support.page_client import PageClient, feed_frames, make_segmented_frame, run_page, wait_for
from tests.support.time_limits import TimeLimit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = Path("/usr/bin/chromium")
BROWSER_ARGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
TOKEN = "only for this test"
READ_PIXEL = """([source, x, y]) => {
    const image = document.querySelector(`[data-source="${source}"] img`);
    if (!image?.naturalWidth) return null;
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    return [...context.getImageData(x * canvas.width, y * canvas.height, 1, 1).data].slice(0, 3);
}"""
OPAQUE_PER_COLUMN = """(id) => {
    const canvas = document.getElementById(id);
    const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    let count = 0;
    for (let i = 3; i < data.length; i += 4) count += data[i] > 200;
    return count / canvas.width;
}"""
SKY, ROAD = (0.5, 0.1), (0.5, 0.9)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=BROWSER_ARGS)
        yield browser
        browser.close()


@contextmanager
def open_page(browser: Browser, page: PageClient, *, path: str = "/") -> Iterator[Page]:
    """Open the page in a new browser context. Fail if its console shows an error."""
    errors: list[str] = []
    with browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="light") as context:
        tab = context.new_page()
        tab.set_default_timeout(20_000)
        tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.goto(page.url + path)
        yield tab
    assert not errors


def wait_in(tab: Page, condition: Callable[[], object]) -> None:
    """Poll a condition. Playwright's wait_for_function needs eval, which the page's security policy forbids."""

    def poll() -> bool:
        tab.wait_for_timeout(20)  # processes the browser's messages
        return bool(condition())

    wait_for(poll, 20)


def read_pixel(tab: Page, position: tuple[float, float], source: str = "front") -> list[int] | None:
    rgb: list[int] | None = tab.evaluate(READ_PIXEL, [source, *position])
    return rgb


def has_colour(tab: Page, position: tuple[float, float], bgr: np.ndarray, source: str = "front") -> bool:
    """Return True if the image has a colour at a relative position, within the error of JPEG."""
    rgb = read_pixel(tab, position, source)
    return rgb is not None and bool(np.abs(np.array(rgb[::-1]) - bgr.astype(int)).max() <= 12)


def test_live_images_and_charts_update(browser: Browser) -> None:
    with run_page() as page, feed_frames(page), open_page(browser, page) as tab:
        tab.click("[data-view=original]")
        greys = set[int]()

        def has_changed() -> bool:
            greys.update((read_pixel(tab, SKY) or [])[:1])
            return len(greys) > 4

        wait_in(tab, has_changed)
        wait_in(tab, lambda: float(tab.inner_text("#fps").replace("–", "0")) > 5)
        for chart in ("chart-fps", "chart-age"):  # more than the axis
            wait_in(tab, partial(lambda chart: tab.evaluate(OPAQUE_PER_COLUMN, chart) > 1.02, chart))
        assert tab.locator("#legend li").count() == len(CAMVID)
        assert "fps" in tab.inner_text("figcaption span >> nth=0")
        assert tab.inner_text("#engine") == "road, openvino int8 on CPU"
        assert "apply to all viewers" in tab.inner_text("[aria-label=Classes]")


def test_the_controls(browser: Browser) -> None:
    sky, road = (CAMVID.bgr[CAMVID.index(name)] for name in ("sky", "road"))
    with run_page() as page, open_page(browser, page) as tab:
        page.put(make_segmented_frame(0, grey=200))
        grey = np.full(3, 200)
        wait_in(tab, lambda: has_colour(tab, ROAD, (grey + road) // 2))
        tab.click("[data-view=mask]")
        wait_in(tab, lambda: has_colour(tab, SKY, sky) and has_colour(tab, ROAD, road))
        tab.click("#legend li:has-text('sky') label")
        wait_in(tab, lambda: has_colour(tab, SKY, np.zeros(3)) and has_colour(tab, ROAD, road))
        tab.click("[data-view=overlay]")
        tab.fill("#opacity", "100")
        wait_in(tab, lambda: has_colour(tab, SKY, grey) and has_colour(tab, ROAD, road))
        assert tab.inner_text("#opacity-value") == "100 %"
        with open_page(browser, page) as other:  # settings are shared, the view is not
            other.wait_for_selector("#legend li:has-text('sky') input:not(:checked)", state="attached")
            assert other.get_attribute("[data-view=overlay]", "aria-pressed") == "true"
            other.click("[data-view=original]")
            wait_in(other, lambda: has_colour(other, ROAD, grey))
            other.click("#show-all")
            wait_in(other, lambda: page.get("/api/view").json() == {"opacity": 1.0, "hidden": []})
        wait_in(tab, lambda: has_colour(tab, SKY, sky))


def test_the_keyboard(browser: Browser, tmp_path: Path) -> None:
    with run_page() as page, open_page(browser, page) as tab:
        page.put(make_segmented_frame(0, grey=200))
        page.put(make_segmented_frame(0, stream="rear", grey=50))
        tab.wait_for_selector("[data-source=rear]")
        tab.keyboard.press("o")
        wait_in(tab, lambda: has_colour(tab, SKY, np.full(3, 200)))
        tab.keyboard.press("ArrowRight")
        tab.wait_for_selector("[data-source=rear].selected")
        with tab.expect_download() as saved:
            tab.keyboard.press("s")
        assert saved.value.suggested_filename == "rear_000000_original.png"
        saved.value.save_as(tmp_path / "a.png")
        assert (cv2.imread(str(tmp_path / "a.png")) == 50).all()
        tab.keyboard.press("g")
        tab.wait_for_selector("#tiles.all")
        wait_in(tab, lambda: has_colour(tab, SKY, np.full(3, 50), "rear") and has_colour(tab, SKY, np.full(3, 200)))
        tab.keyboard.press("m")
        assert tab.get_attribute("[data-view=mask]", "aria-pressed") == "true"
        for _ in range(3):
            tab.keyboard.press("+")
        wait_in(tab, lambda: page.get("/api/view").json()["opacity"] == 0.65)
        light = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        tab.keyboard.press("t")
        assert tab.evaluate("getComputedStyle(document.body).backgroundColor") != light
        tab.reload()
        assert tab.evaluate("document.documentElement.dataset.theme") == "dark"
        tab.wait_for_selector("[data-source=rear]")
        tab.keyboard.press("?")
        tab.wait_for_selector("#keys[open]")
        tab.keyboard.press("Escape")
        tab.keyboard.press("f")
        wait_in(tab, lambda: tab.evaluate("document.fullscreenElement?.dataset.source") == "front")


def test_a_source_stalls_and_recovers(browser: Browser) -> None:
    with run_page() as page, open_page(browser, page) as tab:
        with feed_frames(page):
            tab.wait_for_selector(".tile.up:not(.dimmed)")
        tab.wait_for_selector(".tile.dimmed:not(.up)")
        assert tab.inner_text(".scrim b") == "stalled"
        assert "no frames" in tab.inner_text(".scrim small")
        with feed_frames(page):
            tab.wait_for_selector(".tile.up:not(.dimmed)")
            first = read_pixel(tab, SKY)
            wait_in(tab, lambda: read_pixel(tab, SKY) != first)


def test_a_hidden_page_stops_its_stream_and_a_lost_server_is_reported(browser: Browser) -> None:
    with run_page() as page, browser.new_context() as context:
        page.put(make_segmented_frame(0))
        tab = context.new_page()
        tab.goto(page.url)
        wait_in(tab, lambda: page.get("/api/stats").json()["viewers"] == 1)
        tab.evaluate("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
        tab.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        wait_in(tab, lambda: page.get("/api/stats").json()["viewers"] == 0)
        tab.evaluate("Object.defineProperty(document, 'hidden', {value: false})")
        tab.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        wait_in(tab, lambda: page.get("/api/stats").json()["viewers"] == 1)
        page.end_stream()
        tab.wait_for_selector("#connection.error:has-text('Disconnected. Reconnecting…')")
        wait_in(tab, lambda: not tab.evaluate("document.querySelector('.tile img').naturalWidth"))
        assert tab.evaluate("document.querySelector('.tile').clientHeight") > 300  # the tile keeps its shape


def is_shown(tab: Page, selector: str) -> bool:
    """Return True if an element of a scrim is on the screen, opaque, and not hidden by full screen."""
    script = """(element) => {
        const { left, top, width, height } = element.getBoundingClientRect();
        const inside = width > 0 && left >= 0 && top >= 0 && left + width <= innerWidth && top + height <= innerHeight;
        const opaque = getComputedStyle(element.closest(".scrim")).opacity === "1";
        return inside && opaque && (document.fullscreenElement?.contains(element) ?? true);
    }"""
    return tab.locator(selector).count() > 0 and bool(tab.locator(selector).first.evaluate(script))


def test_a_lost_server_is_reported_in_full_screen_and_comes_back(
    browser: Browser, unused_port: int, time_limit: TimeLimit
) -> None:
    with browser.new_context() as context:
        tab = context.new_page()
        with run_page(port=unused_port) as page, feed_frames(page):
            tab.goto(page.url)
            tab.wait_for_selector(".tile.up")
            tab.keyboard.press("f")
            wait_in(tab, lambda: tab.evaluate("document.fullscreenElement?.dataset.source") == "front")
            wait_in(tab, lambda: read_pixel(tab, ROAD) is not None)
        with time_limit(3):
            wait_in(tab, lambda: is_shown(tab, ".tile:fullscreen.dimmed .scrim b:text('disconnected')"))
        assert "disconnected" in tab.inner_text("figcaption")
        with run_page(port=unused_port) as page:
            tab.wait_for_selector("#connection:not(.error)", state="attached")  # before its first frame
            with feed_frames(page):
                tab.wait_for_selector(".tile:fullscreen.up:not(.dimmed)")
                first = read_pixel(tab, ROAD)
                wait_in(tab, lambda: read_pixel(tab, ROAD) != first)


def test_a_server_that_hangs_is_reported(browser: Browser, time_limit: TimeLimit) -> None:
    with run_page() as page, feed_frames(page), browser.new_context() as context:
        page.put(replace(make_frame(0, stream="rear"), signal=Signal("down", "refused", 0)))
        tab = context.new_page()
        tab.goto(page.url)
        tab.wait_for_selector(".tile.up")
        tab.wait_for_selector("[data-source=rear]:not(.dimmed)")  # a placeholder shows the state itself
        with time_limit(3):
            tab.route("**/healthz", lambda route: None)  # as if its network cable had been cut
            tab.wait_for_selector("#connection.error:has-text('Disconnected. Reconnecting…')")
            for source in ("front", "rear"):
                tab.wait_for_selector(f"[data-source={source}].dimmed .scrim b:has-text('disconnected')")
        tab.unroute("**/healthz")
        tab.wait_for_selector(".tile.up:not(.dimmed)")


def test_a_stage_that_makes_no_progress_is_reported(browser: Browser) -> None:
    with run_page() as page, browser.new_context() as context:
        page.put(make_segmented_frame(0))
        tab = context.new_page()
        line = "stage segment makes no progress: at frame front:12 for 9 s"
        tab.route("**/healthz", lambda route: route.fulfill(status=503, body=f"{line}\n"))
        tab.goto(page.url)
        tab.wait_for_selector(f"#connection.error:text-is('{line}')")
        tab.unroute("**/healthz")
        tab.wait_for_selector("#connection:not(.error):has-text('live streams in use')")


def test_a_lost_server_is_reported_within_3_s() -> None:
    """The tests above measure it on an idle machine only: the next poll, and the longest wait for its answer."""
    script = (STATIC / "page.js").read_text(encoding="utf-8")
    times_ms = dict(re.findall(r"^const (POLL_MS|SILENT_MS) = (\d+);", script, re.MULTILINE))
    assert sum(map(int, times_ms.values())) == 2500


def test_a_recording_that_is_over_shows_its_last_image(browser: Browser) -> None:
    with run_page(stay=True) as page, open_page(browser, page) as tab:
        page.put(make_segmented_frame(0, grey=200))
        page.end_stream()
        tab.wait_for_selector(".tile.ended:not(.dimmed)")
        assert tab.inner_text("figcaption").strip() == "front · ended"
        tab.click("[data-view=original]")
        wait_in(tab, lambda: has_colour(tab, SKY, np.full(3, 200)))


def test_the_quality_level_and_its_meaning(browser: Browser) -> None:
    with run_page() as page, open_page(browser, page) as tab:
        frame = make_segmented_frame(0)
        page.put(replace(frame, temporal=Temporal(key=False, quality_level=4, every=5, input_size=(192, 320))))
        text = "Quality level 4: the network runs on every 5th frame, at 320×192."
        tab.wait_for_selector(f"#quality:text-is('{text}')")
        page.put(replace(frame, temporal=Temporal(input_size=(384, 640))))
        text = "Quality level 0 (full): the network runs on every frame, at 640×384."
        tab.wait_for_selector(f"#quality:text-is('{text}')")


def test_the_login(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_SEG_TOKEN", TOKEN)
    with run_page() as page, open_page(browser, page) as tab:
        page.put(make_segmented_frame(0))
        tab.fill("#token", "not the right one")
        tab.click("button")
        tab.wait_for_selector("#message:has-text('Invalid token.')")
        tab.fill("#token", TOKEN)
        tab.click("button")
        tab.wait_for_selector(".tile.up")
        assert tab.evaluate("document.cookie") == ""
        tab.click("#logout button")
        tab.wait_for_selector("#token")


@pytest.mark.parametrize("width", [320, 390, 820, 1920])
def test_nothing_overflows_horizontally(browser: Browser, width: int) -> None:
    with run_page() as page, open_page(browser, page) as tab:
        page.put(make_segmented_frame(0, stream="a camera with a rather long name"))
        page.put(make_segmented_frame(0, stream="rear"))
        tab.set_viewport_size({"width": width, "height": 800})
        tab.wait_for_selector("[data-source=rear]")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        small = "[...document.querySelectorAll('button')].filter((b) => b.offsetWidth && b.offsetHeight < 24).length"
        assert tab.evaluate(small) == 0
