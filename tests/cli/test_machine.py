"""Facts about a machine: CPU, GPUs, packages, codecs, windows."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream_seg.cli.doctor import (
    check_window,
    cpu_features,
    cuda_version,
    list_codecs,
    list_gpus,
    package_versions,
)

NVIDIA_SMI = """#!/bin/sh
case "$*" in
  *compute_cap*) {compute_cap} ;;
  *--query-gpu*) echo "NVIDIA H200, 143771 MiB, 570.86.10" ;;
  *) echo "| NVIDIA-SMI 570.86.10    Driver Version: 570.86.10    CUDA Version: 12.8     |" ;;
esac
"""


def fake_nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, *, compute_cap: str) -> None:
    """Put a fake nvidia-smi first on the PATH."""
    command = folder / "nvidia-smi"
    command.write_text(NVIDIA_SMI.format(compute_cap=compute_cap))
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_features_are_read_from_cpuinfo(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nflags\t\t: fpu avx2 avx512f avx512_vnni avx_vnni amx_int8\n")
    assert cpu_features(cpuinfo) == ["AVX2", "AVX-512", "VNNI", "AMX int8"]
    assert cpu_features(tmp_path / "missing") == []


def test_a_gpu_and_its_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvidia_smi(tmp_path, monkeypatch, compute_cap='echo "NVIDIA H200, 143771 MiB, 570.86.10, 9.0"')
    assert list_gpus() == [
        {"name": "NVIDIA H200", "memory": "143771 MiB", "driver": "570.86.10", "compute_capability": "9.0"}
    ]
    assert cuda_version() == "12.8"


def test_an_old_driver_reports_no_compute_capability(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvidia_smi(tmp_path, monkeypatch, compute_cap="exit 2")
    assert list_gpus() == [{"name": "NVIDIA H200", "memory": "143771 MiB", "driver": "570.86.10"}]


def test_without_a_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list_gpus() == []
    assert cuda_version() is None


def test_packages_and_codecs() -> None:
    versions = package_versions()
    assert versions["numpy"]
    assert versions["opencv-python"]
    assert versions["openvino"]
    assert list_codecs()["h264"]
    assert {"h264", "hevc"} <= set(list_codecs()["decode"])


def test_a_window_needs_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    facts = check_window()
    assert facts["toolkit"]
    assert "DISPLAY is not set" in str(facts["lack"])
