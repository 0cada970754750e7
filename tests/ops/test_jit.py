"""Numba's cache: used if it can be trusted, and never the end of a run."""

from __future__ import annotations

import errno
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numba
import pytest
from numba.core import event
from numba.core.caching import CacheImpl, IndexDataCacheFile

from stream_seg.ops import jit as jit_module
from stream_seg.ops.jit import is_compiling, jit
from tests.support.program import ENDLESS_DRIVE, count_lines, run_cli

CALLS = ["double", "triple"]


@pytest.fixture
def kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Any]]:
    """Return a function that compiles two functions of a module as a new run would. The cache is tmp_path/cache."""
    (tmp_path / "kernels.py").write_text("def double(x):\n    return 2 * x\n\ndef triple(x):\n    return 3 * x\n")
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))

    def compile_both() -> list[Any]:
        monkeypatch.setattr(jit_module, "_warned", False)
        spec = importlib.util.spec_from_file_location("kernels", tmp_path / "kernels.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "kernels", module)
        spec.loader.exec_module(module)
        functions = [jit(getattr(module, name)) for name in CALLS]
        assert [function(7) for function in functions] == [14, 21]
        return functions

    return compile_both


def cache_hits(functions: list[Any]) -> list[int]:
    """Return the number of signatures that each function loaded from the cache."""
    return [sum(function.stats.cache_hits.values()) for function in functions]


def test_the_second_run_loads_both_functions(
    kernels: Callable[[], list[Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert cache_hits(kernels()) == [0, 0]
    assert len(list((tmp_path / "cache").rglob("*.nbc"))) == 2
    assert cache_hits(kernels()) == [1, 1]
    assert caplog.messages == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES], ids=errno.errorcode.get)
def test_a_cache_that_cannot_be_written_is_logged_once(
    number: int,
    kernels: Callable[[], list[Any]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    @contextmanager
    def fail(*_: object) -> Iterator[None]:
        raise OSError(number, os.strerror(number))
        yield

    monkeypatch.setattr(IndexDataCacheFile, "_open_for_write", fail)
    for _ in range(2):
        caplog.clear()
        assert cache_hits(kernels()) == [0, 0]
        (message,) = caplog.messages
        assert message.startswith(f"numba's cache is not used, functions are compiled in every run: {tmp_path}/cache/")
        assert message.endswith(f": {os.strerror(number)}")


@pytest.mark.parametrize("pattern", ["*.nbi", "*.nbc"])
@pytest.mark.parametrize(
    "content", [b"", b"\x80\x05garbage", b"cos\nno_such_name\n."], ids=["empty", "garbage", "name"]
)
def test_a_damaged_cache_is_logged_and_repaired(
    pattern: str, content: bytes, kernels: Callable[[], list[Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As a power cut leaves it."""
    kernels()
    for path in (tmp_path / "cache").rglob(pattern):
        path.write_bytes(content)
    assert cache_hits(kernels()) == [0, 0]
    assert len(caplog.messages) == 1
    assert cache_hits(kernels()) == [1, 1]
    assert len(caplog.messages) == 1


def test_a_machine_without_a_folder_for_the_cache(
    kernels: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(CacheImpl, "_locator_classes", [])
    kernels()
    assert caplog.messages == [
        "numba's cache is not used, functions are compiled in every run: no folder is writable; set NUMBA_CACHE_DIR to "
        "one that is"
    ]


def test_a_cache_that_others_can_write_is_logged(
    kernels: Callable[[], list[Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kernels()
    for folder in (tmp_path / "cache").iterdir():
        folder.chmod(0o777)
    assert cache_hits(kernels()) == [0, 0]
    assert len(caplog.messages) == 1
    assert "is writable by other users" in caplog.messages[0]


def test_a_limit_on_the_size_of_files_is_like_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "kernels.py").write_text("def double(x):\n    return 2 * x\n")
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "from kernels import double; from stream_seg.ops.jit import jit; print(jit(double)(21))"
    )
    paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    environment = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (run.stdout, run.returncode) == ("42\n", 0)
    assert "File too large" in run.stderr


def test_compilations_are_noticed(kernels: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog counts no time while a function is compiled. A function that comes from the cache is not."""
    states: list[bool] = []

    class Listener(event.Listener):
        def on_start(self, _: event.Event) -> None:
            states.append(is_compiling())

        def on_end(self, _: event.Event) -> None:
            """Compiled."""

    with cast(Any, event).install_listener("numba:compile", Listener()):
        assert not is_compiling()
        kernels()
        assert states == [True, True]
        assert not is_compiling()
        kernels()
        assert states == [True, True]
        monkeypatch.setattr(jit_module, "LONGEST_COMPILATION_S", 0.0)
        monkeypatch.setattr(numba.config, "CACHE_DIR", "")
        kernels()
        assert states == [True, True, False, False]


def test_a_run_without_any_cache_and_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "STREAM_SEG_CACHE", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, "/dev/null/missing")
    monkeypatch.delenv("HOME", raising=False)
    assert run_cli("run", f"{ENDLESS_DRIVE}&frames=3", tmp_path / "o.jsonl", "--quiet") == 0
    assert count_lines(tmp_path / "o.jsonl") == 3
