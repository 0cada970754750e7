"""The doctor on this machine, and on CPUs that it is told of."""

from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console

from stream_seg.doctor import as_table, cpu_features, examined


def test_this_machine_can_run_the_main_job() -> None:
    found, todo = examined()
    assert todo is None
    assert found["engine"]["network"] == "road"
    assert found["backend"]["name"] == found["engine"]["backend"]
    assert found["frame_ms"] > 0
    assert found["versions"]["numpy"]
    assert json.loads(json.dumps(found)) == found
    screen = Console(file=io.StringIO(), width=100)
    screen.print(as_table(found, todo))
    text = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "the main job can run" in text
    assert len(text.splitlines()) <= 24


def test_what_to_do_stands_in_the_table() -> None:
    found = {"python": "3.12", "cpu": {"name": "x", "features": []}, "gpus": [], "versions": {"openvino": None}}
    screen = Console(file=io.StringIO(), width=100)
    screen.print(as_table(found, "pip install openvino"))
    assert "to do: pip install openvino" in screen.file.getvalue()  # type: ignore[attr-defined]


def test_features_are_read_from_cpuinfo(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nflags\t\t: fpu avx2 avx512f avx512_vnni amx_int8\n")
    assert cpu_features(cpuinfo) == ["AVX2", "AVX-512", "VNNI", "AMX int8"]
    assert cpu_features(tmp_path / "missing") == []
