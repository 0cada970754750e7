"""Options and fixtures of the whole suite."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from stream_seg.telemetry.logs import JsonLines, TextLines
from tests.support.program import find_free_port
from tests.support.time_limits import TimeLimit, make_time_limit

DATA = (Path(__file__).parents[1] / "../shared/data").resolve()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --soak."""
    parser.addoption("--soak", action="store_true", help="run the tests that need an idle machine, with exact limits")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Select the tests, and keep those of a file on one worker of pytest-xdist unless they have groups of their own.

    Such groups are small and come last: they fill the time in which one worker would wait for another.
    """
    soak = config.getoption("soak")
    selected = [item for item in items if (is_timed(item) if soak else item.get_closest_marker("soak") is None)]
    config.hook.pytest_deselected(items=list(set(items).difference(selected)))
    grouped = [item for item in selected if item.get_closest_marker("xdist_group") is not None]
    others = [item for item in selected if item.get_closest_marker("xdist_group") is None]
    for item in others:
        item.add_marker(pytest.mark.xdist_group(item.location[0]))
    items[:] = others + grouped


def is_timed(item: pytest.Item) -> bool:
    """Return whether a test runs under --soak: it is marked so, or has time limits."""
    return item.get_closest_marker("soak") is not None or "time_limit" in getattr(item, "fixturenames", ())


def pytest_keyboard_interrupt() -> None:
    """Kill everything that the tests started, so that Ctrl-C ends a parallel run at once."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            process.kill()


@pytest.fixture(autouse=True, scope="session")
def engine_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty engine cache: engines that the user has built must not decide which one a test opens."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("user") / "engines"
        patch.setenv("STREAM_SEG_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def log_handlers() -> Iterator[None]:
    """Remove the handlers that a command adds to the log: they write to a stream that is closed after its test."""
    root = logging.getLogger()
    level, before = root.level, [*root.handlers]
    yield
    for handler in [handler for handler in root.handlers if handler not in before]:
        if isinstance(handler.formatter, JsonLines | TextLines):
            root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture
def time_limit(pytestconfig: pytest.Config) -> TimeLimit:
    """`with time_limit(seconds):` fails if its body takes longer; exact under --soak only."""
    return make_time_limit(exact=pytestconfig.getoption("soak"))


@pytest.fixture
def unused_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago."""
    return find_free_port()


@pytest.fixture
def data() -> Path:
    """The folder of real videos and labeled images; the test is skipped where it is absent."""
    if not DATA.is_dir():
        pytest.skip("the folder of real data is absent")
    return DATA
