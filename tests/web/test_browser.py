"""The page in a real browser: what a viewer sees and what the controls do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from stream_seg.datasets.palettes import CAMVID
from tests.support.page_client import Shown, fed, segmented, shown, until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = Path("/usr/bin/chromium")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
TOKEN = "only for this test"
PIXEL = """([source, x, y]) => {
    const image = document.querySelector(`[data-source="${source}"] img`);
    if (!image?.naturalWidth) return null;
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const ink = canvas.getContext("2d");
    ink.drawImage(image, 0, 0);
    return [...ink.getImageData(x * canvas.width, y * canvas.height, 1, 1).data].slice(0, 3);
}"""
DRAWN = """(id) => {
    const canvas = document.getElementById(id);
    const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    let strong = 0;
    for (let i = 3; i < data.length; i += 4) strong += data[i] > 200;
    return strong / canvas.width;
}"""
SKY, ROAD = (0.5, 0.1), (0.5, 0.9)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not here")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not here")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@contextmanager
def viewer(browser: Browser, page: Shown, *, path: str = "/") -> Iterator[Page]:
    """A browser at the page; what its console complains of is an error."""
    complaints: list[str] = []
    with browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="light") as context:
        seen = context.new_page()
        seen.set_default_timeout(20_000)
        seen.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        seen.on("pageerror", lambda error: complaints.append(str(error)))
        seen.goto(page.address + path)
        yield seen
    assert not complaints


def soon(seen: Page, there: Callable[[], object]) -> None:
    """Wait until it is there. (Playwright's own wait_for_function is what the page's security policy forbids.)"""

    def looked() -> bool:
        seen.wait_for_timeout(20)  # lets the browser's messages in
        return bool(there())

    until(looked, 20)


def pixel(seen: Page, place: tuple[float, float], source: str = "front") -> list[int] | None:
    found: list[int] | None = seen.evaluate(PIXEL, [source, *place])
    return found


def like(seen: Page, place: tuple[float, float], bgr: np.ndarray, source: str = "front") -> bool:
    """Whether a place of the picture has a colour, as near as JPEG brings it."""
    found = pixel(seen, place, source)
    return found is not None and bool(np.abs(np.array(found[::-1]) - bgr.astype(int)).max() <= 12)


def test_the_picture_moves_and_the_charts_fill(browser: Browser) -> None:
    with shown() as page, fed(page), viewer(browser, page) as seen:
        seen.click("[data-view=original]")
        greys = set[int]()

        def moves() -> bool:
            greys.update((pixel(seen, SKY) or [])[:1])
            return len(greys) > 4

        soon(seen, moves)
        soon(seen, lambda: float(seen.inner_text("#fps").replace("–", "0")) > 5)
        soon(seen, lambda: seen.evaluate(DRAWN, "chart-fps") > 1.02 and seen.evaluate(DRAWN, "chart-age") > 1.02)
        assert seen.locator("#legend li").count() == len(CAMVID)
        assert "fps" in seen.inner_text("figcaption span >> nth=0")
        assert seen.inner_text("#engine") == "road, openvino int8 on CPU"
        assert "for all viewers" in seen.inner_text("[aria-label=Classes]")


def test_the_controls_act(browser: Browser) -> None:
    sky, road = (CAMVID.bgr[CAMVID.index(name)] for name in ("sky", "road"))
    with shown() as page, viewer(browser, page) as seen:
        page.put(segmented(0, grey=200))
        grey = np.full(3, 200)
        soon(seen, lambda: like(seen, ROAD, (grey + road) // 2))
        seen.click("[data-view=mask]")
        soon(seen, lambda: like(seen, SKY, sky) and like(seen, ROAD, road))
        seen.click("#legend li:has-text('sky') label")
        soon(seen, lambda: like(seen, SKY, np.zeros(3)) and like(seen, ROAD, road))
        seen.click("[data-view=overlay]")
        seen.fill("#opacity", "100")
        soon(seen, lambda: like(seen, SKY, grey) and like(seen, ROAD, road))
        assert seen.inner_text("#opacity-said") == "100 %"
        with viewer(browser, page) as other:  # the settings are everybody's, the view is not
            other.wait_for_selector("#legend li:has-text('sky') input:not(:checked)", state="attached")
            assert other.get_attribute("[data-view=overlay]", "aria-pressed") == "true"
            other.click("[data-view=original]")
            soon(other, lambda: like(other, ROAD, grey))
            other.click("#every")
            soon(other, lambda: page.get("/api/view").json() == {"opacity": 1.0, "hidden": []})
        soon(seen, lambda: like(seen, SKY, sky))


def test_the_keyboard(browser: Browser, tmp_path: Path) -> None:
    with shown() as page, viewer(browser, page) as seen:
        page.put(segmented(0, grey=200))
        page.put(segmented(0, stream="rear", grey=50))
        seen.wait_for_selector("[data-source=rear]")
        seen.keyboard.press("o")
        soon(seen, lambda: like(seen, SKY, np.full(3, 200)))
        seen.keyboard.press("ArrowRight")
        seen.wait_for_selector("[data-source=rear].chosen")
        with seen.expect_download() as saved:
            seen.keyboard.press("s")
        assert saved.value.suggested_filename == "rear_000000_original.png"
        saved.value.save_as(tmp_path / "a.png")
        assert (cv2.imread(str(tmp_path / "a.png")) == 50).all()
        seen.keyboard.press("g")
        seen.wait_for_selector("#wall.all")
        soon(seen, lambda: like(seen, SKY, np.full(3, 50), "rear") and like(seen, SKY, np.full(3, 200)))
        seen.keyboard.press("m")
        assert seen.get_attribute("[data-view=mask]", "aria-pressed") == "true"
        for _ in range(3):
            seen.keyboard.press("+")
        soon(seen, lambda: page.get("/api/view").json()["opacity"] == 0.65)
        light = seen.evaluate("getComputedStyle(document.body).backgroundColor")
        seen.keyboard.press("t")
        assert seen.evaluate("getComputedStyle(document.body).backgroundColor") != light
        seen.reload()
        assert seen.evaluate("document.documentElement.dataset.theme") == "dark"
        seen.wait_for_selector("[data-source=rear]")
        seen.keyboard.press("?")
        seen.wait_for_selector("#keys[open]")
        seen.keyboard.press("Escape")
        seen.keyboard.press("f")
        soon(seen, lambda: seen.evaluate("document.fullscreenElement?.dataset.source") == "front")


def test_a_source_dies_and_returns(browser: Browser) -> None:
    with shown() as page, viewer(browser, page) as seen:
        with fed(page):
            seen.wait_for_selector(".tile.up:not(.veiled)")
        seen.wait_for_selector(".tile.veiled:not(.up)")
        assert seen.inner_text(".veil b") == "stalled"
        assert "no frames" in seen.inner_text(".veil small")
        with fed(page):
            seen.wait_for_selector(".tile.up:not(.veiled)")
            first = pixel(seen, SKY)
            soon(seen, lambda: pixel(seen, SKY) != first)


def test_a_hidden_page_asks_for_nothing_and_a_gone_server_is_said(browser: Browser) -> None:
    with shown() as page, browser.new_context() as context:
        page.put(segmented(0))
        seen = context.new_page()
        seen.goto(page.address)
        soon(seen, lambda: page.get("/api/stats").json()["viewers"] == 1)
        seen.evaluate("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
        seen.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        soon(seen, lambda: page.get("/api/stats").json()["viewers"] == 0)
        seen.evaluate("Object.defineProperty(document, 'hidden', {value: false})")
        seen.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        soon(seen, lambda: page.get("/api/stats").json()["viewers"] == 1)
        page._frames.put(None)
        seen.wait_for_selector("#link.lost:has-text('no connection; trying again')")


def test_the_login(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_SEG_TOKEN", TOKEN)
    with shown() as page, viewer(browser, page) as seen:
        page.put(segmented(0))
        seen.fill("#token", "not the right one")
        seen.click("button")
        seen.wait_for_selector("#said:has-text('That is not the token.')")
        seen.fill("#token", TOKEN)
        seen.click("button")
        seen.wait_for_selector(".tile.up")
        assert seen.evaluate("document.cookie") == ""
        seen.click("#leave button")
        seen.wait_for_selector("#token")


@pytest.mark.parametrize("width", [320, 390, 820, 1920])
def test_nothing_is_cut_off_at_the_side(browser: Browser, width: int) -> None:
    with shown() as page, viewer(browser, page) as seen:
        page.put(segmented(0, stream="a camera with a rather long name"))
        page.put(segmented(0, stream="rear"))
        seen.set_viewport_size({"width": width, "height": 800})
        seen.wait_for_selector("[data-source=rear]")
        assert seen.evaluate("document.documentElement.scrollWidth") <= width
        small = "[...document.querySelectorAll('button')].filter((b) => b.offsetWidth && b.offsetHeight < 24).length"
        assert seen.evaluate(small) == 0
