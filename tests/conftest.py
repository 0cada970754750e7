"""Fixtures that more than one test file needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.program import free_port

DATA = (Path(__file__).parents[1] / "../shared/data").resolve()


@pytest.fixture(autouse=True, scope="session")
def engine_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An engine cache of the tests' own, empty: what the user has built must not decide what a test opens."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("user") / "engines"
        patch.setenv("STREAM_SEG_CACHE", str(folder))
        yield folder


@pytest.fixture
def unused_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago."""
    return free_port()


@pytest.fixture
def data() -> Path:
    """The folder of real videos and labelled pictures; the test is skipped where it is absent."""
    if not DATA.is_dir():
        pytest.skip("the folder of real data is not here")
    return DATA
