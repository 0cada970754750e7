"""What a machine has, of which this one may have none: a CPU and a driver that the functions are told of."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream_seg.cli.doctor import codecs, cpu, cpu_features, cuda, gpus, versions, window

NVIDIA_SMI = """#!/bin/sh
case "$*" in
  *compute_cap*) {compute_cap} ;;
  *--query-gpu*) echo "NVIDIA H200, 143771 MiB, 570.86.10" ;;
  *) echo "| NVIDIA-SMI 570.86.10    Driver Version: 570.86.10    CUDA Version: 12.8     |" ;;
esac
"""


def with_nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, *, compute_cap: str) -> None:
    """A PATH that leads to a stand-in for nvidia-smi."""
    command = folder / "nvidia-smi"
    command.write_text(NVIDIA_SMI.format(compute_cap=compute_cap))
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_features_are_read_from_cpuinfo(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nflags\t\t: fpu avx2 avx512f avx512_vnni avx_vnni amx_int8\n")
    assert cpu_features(cpuinfo) == ["AVX2", "AVX-512", "VNNI", "AMX int8"]
    assert cpu_features(tmp_path / "missing") == []


def test_this_cpu() -> None:
    assert cpu()["name"]
    assert cpu()["cores"] >= 1


def test_a_gpu_and_its_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_nvidia_smi(tmp_path, monkeypatch, compute_cap='echo "NVIDIA H200, 143771 MiB, 570.86.10, 9.0"')
    assert gpus() == [
        {"name": "NVIDIA H200", "memory": "143771 MiB", "driver": "570.86.10", "compute_capability": "9.0"}
    ]
    assert cuda() == "12.8"


def test_an_old_driver_does_not_know_its_compute_capability(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_nvidia_smi(tmp_path, monkeypatch, compute_cap="exit 2")
    assert gpus() == [{"name": "NVIDIA H200", "memory": "143771 MiB", "driver": "570.86.10"}]


def test_without_a_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus() == []
    assert cuda() is None


def test_packages_and_codecs() -> None:
    has = versions()
    assert has["numpy"]
    assert has["opencv-python"]
    assert codecs()["h264"]
    assert {"h264", "hevc"} <= set(codecs()["decode"])


def test_a_window_needs_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    found = window()
    assert found["toolkit"]
    assert "DISPLAY is not set" in str(found["lack"])
