"""Test the lines that `records` writes."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from stream_seg.errors import ConfigError, OutputError
from stream_seg.frame import EngineInfo, Frame, Semantic
from stream_seg.stages.records import Records
from stream_seg.types import Classes
from tests.support.program import list_folder

CLASSES = Classes(("road", "sky", "élan"), ((128, 64, 128), (70, 130, 180), (1, 2, 3)))
SEMANTIC = Semantic(
    CLASSES, EngineInfo("fake", "none", "u8", "cpu"), (2, 3), label_map=np.array([[1, 1, 255], [0, 0, 0]], np.uint8)
)


def frames(count: int, *, stream: str = "front") -> Iterator[Frame]:
    for seq in range(count):
        image = np.zeros((4, 6, 3), np.uint8)
        captured_ns = time.monotonic_ns() - 50_000_000
        yield Frame(stream, seq, seq, Fraction(1, 30), captured_ns, image, SEMANTIC, missed={"decode_error": seq})


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_line_per_frame(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    assert [frame.seq for frame in Records(path)(frames(3))] == [0, 1, 2]
    records = lines(path)
    assert [record["seq"] for record in records] == [0, 1, 2]
    assert 50 <= records[1].pop("latency_ms") < 60_000
    assert records[1] == {
        "stream": "front",
        "seq": 1,
        "pts_s": 0.033333,
        "size": [6, 4],
        "classes": {"road": 0.5, "sky": 0.333333, "élan": 0.0},
        "missed": {"decode_error": 1},
    }
    assert list(tmp_path.iterdir()) == [path]


def test_only_the_named_classes_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    list(Records(path, classes=["élan", "road"])(frames(1)))
    assert lines(path)[0]["classes"] == {"road": 0.5, "élan": 0.0}
    with pytest.raises(ConfigError, match=r"records\.classes: unknown class 'lorry'; the classes are road, sky, élan"):
        list(Records(tmp_path / "o.jsonl", classes=["lorry"])(frames(1)))


def test_a_crash_loses_no_line(tmp_path: Path) -> None:
    stage = Records(tmp_path / "out.jsonl")(frames(3))
    next(stage)
    next(stage)
    assert len(lines(tmp_path / "out.partial.jsonl")) == 2
    stage.close()  # type: ignore[attr-defined]
    assert [record["seq"] for record in lines(tmp_path / "out.jsonl")] == [0, 1]


def test_streams_share_a_file_or_have_one_each(tmp_path: Path) -> None:
    both = [*frames(2), *frames(1, stream="rear")]
    list(Records(tmp_path / "out.jsonl")(iter(both)))
    assert [record["stream"] for record in lines(tmp_path / "out.jsonl")] == ["front", "front", "rear"]
    list(Records(tmp_path / "{stream}.jsonl")(iter(both)))
    assert [len(lines(tmp_path / f"{stream}.jsonl")) for stream in ("front", "rear")] == [2, 1]


def test_no_file_without_frames(tmp_path: Path) -> None:
    assert list(Records(tmp_path / "out.jsonl")(frames(0))) == []
    assert list(tmp_path.iterdir()) == []


def test_frames_without_classes(tmp_path: Path) -> None:
    source = (replace(frame, semantic=None) for frame in frames(1))
    with pytest.raises(ConfigError, match="records: the frames have no classes; put a segment stage before it"):
        list(Records(tmp_path / "out.jsonl")(source))
    assert list(tmp_path.iterdir()) == []


def test_bad_paths(tmp_path: Path) -> None:
    source = frames(1)
    with pytest.raises(OutputError, match="no such folder"):
        next(Records(tmp_path / "no/such/out.jsonl")(source))
    assert next(source).seq == 0
    with pytest.raises(ValidationError, match=r"'out\.json' does not end in \.jsonl"):
        Records("out.json")  # type: ignore[arg-type]


def test_a_file_that_cannot_grow_keeps_its_lines(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from stream_seg.errors import OutputError\n"
        "from tests.stages.test_records import Records, frames\n"
        "try: list(Records(Path(sys.argv[1]))(frames(100)))\n"
        "except OutputError as error: print(error)"
    )

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    path = tmp_path / "out.jsonl"
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", script, str(path)]
    run = subprocess.run(command, cwd=root, preexec_fn=limit, capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == (f"cannot write {path}: the file is larger than this system allows\n", "")
    assert list_folder(tmp_path) == ["out.partial.jsonl"]
    content = (tmp_path / "out.partial.jsonl").read_text()
    assert content.endswith("\n")
    assert [json.loads(line)["seq"] for line in content.splitlines()] == list(range(content.count("\n")))
    assert content.count("\n") > 2
