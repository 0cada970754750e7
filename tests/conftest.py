"""Fixtures that more than one test file needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.programs import free_port

DATA = (Path(__file__).parents[1] / "../shared/data").resolve()


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
