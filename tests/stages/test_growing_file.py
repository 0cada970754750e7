"""A growing file that another thread looks after while its writer finishes it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from stream_seg.stages.growing_file import GrowingFile


@pytest.mark.parametrize("end", ["finish", "discard"])
def test_the_end_of_a_file_is_not_taken_for_its_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    """A sync between the new name and the close would not find the partial file."""
    file, threads = GrowingFile(tmp_path / "o.jsonl", overwrite=False), list[Thread]()
    file.write(b"{}\n")

    def then_sync(change: Callable[..., None]) -> Callable[..., None]:
        def changed(*arguments: Any, **options: Any) -> None:
            change(*arguments, **options)
            threads.append(Thread(target=file.sync))
            threads[-1].start()
            threads[-1].join(0.2)

        return changed

    monkeypatch.setattr(Path, "unlink", then_sync(Path.unlink))
    getattr(file, end)()
    for thread in threads:
        thread.join(10)
    assert threads
    assert file.failure is None
    assert os.listdir(tmp_path) == (["o.jsonl"] if end == "finish" else [])
