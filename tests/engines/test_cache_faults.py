"""A cache that is full, broken or not to be trusted costs a run a warning, and a build its exit code."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stream_seg.backends.engine import Device, Engine
from stream_seg.backends.registry import BACKENDS, Compiler
from stream_seg.engines.build import build_engine
from stream_seg.engines.build_one import Reporter
from stream_seg.engines.open import open_engine
from stream_seg.engines.recipe import EngineRecipe
from stream_seg.errors import NetworkError, OutputError
from stream_seg.network.network import Network, open_network
from tests.support import small_networks

AHEAD = "ahead"
"""Name of a backend that compiles ahead of time: its engines are ONNX, which ONNX Runtime runs."""


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Add the backend, and return the list of the precisions that it compiles."""
    precisions: list[str] = []

    def compile_network(network: Network, precision: str, **_: Any) -> bytes:
        precisions.append(precision)
        return network.f32

    def create_engine(network: Network, *, precision: str, threads: int, plan: bytes, **_: Any) -> Engine:
        return BACKENDS["onnxruntime"].create_engine(replace(network, f32=plan), precision="f32", threads=threads)

    backend = replace(
        BACKENDS["onnxruntime"],
        precisions=("f32",),
        find_device=lambda *_: Device("a test", ("f32",)),
        create_engine=create_engine,
        compiler=Compiler(".plan", compile_network, lambda network, precision: network.f32),
    )
    monkeypatch.setitem(BACKENDS, AHEAD, backend)
    return precisions


@pytest.fixture
def network(tmp_path: Path) -> Network:
    model = small_networks.make_model(outputs={"out": 3})
    return open_network(small_networks.write_network(tmp_path, model, {"classes": small_networks.CLASSES}))


def use_a_file(folder: Path, _: pytest.MonkeyPatch) -> None:
    """Put a file into the place of the cache."""
    folder.write_text("no folder")


def use_a_missing_parent(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Put the cache into the folder of a file: it cannot be made, as in a home directory that is read-only."""
    (folder.parent / "file").write_text("no folder")
    patch.setenv("STREAM_SEG_CACHE", str(folder.parent / "file" / "engines"))


def let_others_write(folder: Path, _: pytest.MonkeyPatch) -> None:
    """Make the cache writable for the group."""
    folder.mkdir()
    folder.chmod(0o770)


def fill_the_disk(_: Path, patch: pytest.MonkeyPatch) -> None:
    """Let every file that is written to the disk fail."""

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    patch.setattr(os, "fsync", fail)


def use_up_the_quota(_: Path, patch: pytest.MonkeyPatch) -> None:
    """Let the lock fail, the first file of a build."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    patch.setattr("filelock.FileLock.acquire", fail)


FAULTS = {
    use_a_file: "is not a folder",
    use_a_missing_parent: "Not a directory",
    let_others_write: "is writable by others",
    fill_the_disk: "disk full",
    use_up_the_quota: "quota exceeded",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_engine_that_cannot_be_stored_is_used_all_the_same(
    fault: Callable[[Path, pytest.MonkeyPatch], None],
    compiled: list[str],
    network: Network,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = tmp_path / "engines"
    monkeypatch.setenv("STREAM_SEG_CACHE", str(folder))
    fault(folder, monkeypatch)
    with open_engine(network, backend=AHEAD) as engine:
        assert engine.spec.info.precision == "f32"
    assert compiled == ["f32"]
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert FAULTS[fault] in warnings[0]
    assert not [path for path in folder.glob("*") if path.suffix != ".lock"]


def test_an_engine_that_can_be_stored_is_built_once(
    compiled: list[str],
    network: Network,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("STREAM_SEG_CACHE", str(tmp_path / "engines"))
    steps: list[str] = []
    for _ in range(2):
        open_engine(network, backend=AHEAD, on_progress=steps.append).close()
    assert compiled == ["f32"]
    assert steps == [f"{network.name}: ONNX Runtime builds f32 on a test"]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_build_into_such_a_cache_fails(
    fault: Callable[[Path, pytest.MonkeyPatch], None],
    compiled: list[str],
    network: Network,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`stream-seg engines build` has nothing else to do."""
    monkeypatch.setenv("STREAM_SEG_CACHE", str(tmp_path / "engines"))
    fault(tmp_path / "engines", monkeypatch)
    recipe = EngineRecipe(network=str(tmp_path / f"{network.name}.onnx"), backend=AHEAD)
    with pytest.raises((OutputError, NetworkError)):
        build_engine(recipe, folder=Path(os.environ["STREAM_SEG_CACHE"]), report=Reporter(lambda _: None))
    assert len(compiled) == (fault is fill_the_disk)
