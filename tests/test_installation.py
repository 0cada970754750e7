"""Hints name the command that fits the environment, and files are found where this copy has them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from stream_seg import installation
from stream_seg.backends.registry import BACKENDS
from stream_seg.cli.export import require_modules
from stream_seg.errors import ConfigError
from stream_seg.installation import find_file, install_hint, reinstall_hint
from tests.support.program import run_cli

ROOT = Path(__file__).parents[1]


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An activated virtual environment with pip, that has an installed copy."""
    prefix = tmp_path / "my env"
    site, programs = prefix / "lib/python3/site-packages", prefix / "bin"
    for folder in (site, programs):
        folder.mkdir(parents=True)
    for program in ("python", "pip"):
        (programs / program).write_text("#!/bin/sh\n")
        (programs / program).chmod(0o755)
    monkeypatch.setattr(sys, "prefix", str(prefix))
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.setattr(installation, "ROOT", site)
    monkeypatch.setenv("PATH", str(programs))
    return prefix


def test_of_an_installed_copy_its_name_is_enough(environment: Path, tmp_path: Path) -> None:
    assert install_hint("[web]") == "pip install 'stream-seg[web]'"
    assert install_hint("openvino") == "pip install openvino"
    assert reinstall_hint() == "pip install --force-reinstall stream-seg"
    assert reinstall_hint("av") == "pip install --force-reinstall av"


def test_of_a_checkout_its_folder(environment: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(installation, "ROOT", ROOT)
    monkeypatch.chdir(ROOT)
    assert install_hint("[web]") == "pip install -e '.[web]'"
    assert install_hint("openvino") == "pip install openvino"
    monkeypatch.chdir(tmp_path)
    assert install_hint("[web]") == f"pip install -e '{ROOT}[web]'"
    assert reinstall_hint() == f"pip install --force-reinstall {ROOT}"


def test_where_pip_is_that_of_another_environment(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in (str(environment / "nowhere"), str(Path(shutil.which("sh", path="/bin:/usr/bin") or "").parent)):
        monkeypatch.setenv("PATH", other)
        assert install_hint("[web]") == f"'{environment}/bin/python' -m pip install 'stream-seg[web]'"


def test_with_pipx(environment: Path) -> None:
    (environment / "pipx_metadata.json").write_text("{}")
    assert install_hint("[web]") == "pipx runpip 'my env' install 'stream-seg[web]'"


def test_with_uv(environment: Path) -> None:
    (environment / "pyvenv.cfg").write_text("home = /usr/bin\nuv = 0.9.2\n")
    assert install_hint("[web]") == f"uv pip install --python '{environment}' 'stream-seg[web]'"


def test_files_are_those_of_the_wheel(environment: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    share = tmp_path / "user" / "share" / "stream-seg"  # pip install --user
    installed = [environment / "lib/x.py", share / "configs" / "camera.yaml", share / "docs" / "engines.md"]
    monkeypatch.setattr(installation, "_list_files", lambda: installed)
    monkeypatch.chdir(environment)
    assert find_file("configs") == share / "configs"
    assert find_file("docs/engines.md") == share / "docs" / "engines.md"
    monkeypatch.setattr(installation, "_list_files", list)
    assert find_file("configs") == Path("share/stream-seg/configs")


def test_files_are_those_of_the_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    assert find_file("configs") == Path("configs")
    monkeypatch.chdir(tmp_path)
    assert find_file("docs/engines.md") == ROOT / "docs/engines.md"


def test_every_hint_is_a_command() -> None:
    with pytest.raises(ConfigError, match=r"needs no_such_package: .*pip install .*\[train\]'$"):
        require_modules("no_such_package", purpose="export")
    for backend in BACKENDS.values():
        assert "pip install" in backend.install_hint()


def test_the_wheel_contains_the_files_that_help_names(capsys: pytest.CaptureFixture[str]) -> None:
    tomllib = pytest.importorskip("tomllib", reason="is part of Python 3.11")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    files = settings["data-files"].items()
    targets = {target.removeprefix("share/stream-seg").strip("/"): patterns for target, patterns in files}
    for target, patterns in targets.items():
        for pattern in patterns:
            assert list(ROOT.glob(pattern)), pattern
            assert Path(pattern).parent == Path(target), "links between pages are relative"
    for command, names in (("run", "configs"), ("train", "configs/train"), ("engines build", "engines")):
        assert run_cli(*command.split(), "--help") == 0
        shown = "".join(capsys.readouterr().out.split())
        assert f"{find_file(names)}/" in shown
        assert names in targets
    assert run_cli("engines") in (0, 2)
    assert str(find_file("docs/engines.md")) in "".join("".join(capsys.readouterr()).split())
    assert "docs" in targets
