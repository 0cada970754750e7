"""Commands that add packages to this copy of the package, by the way it was installed, and the files beside it."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

DISTRIBUTION = "stream-seg"
ROOT = Path(__file__).parents[1]
"""The folder that contains the package: that of a checkout, or site-packages."""
SHARE = f"share/{DISTRIBUTION}/"
"""Folder in which a wheel installs the folders beside the package in a checkout: docs, configs, examples."""


def install_hint(*requirements: str) -> str:
    """Return the command that installs packages into this environment; "[EXTRA]" is an extra of this package."""
    own, options = DISTRIBUTION, list[str]()  # of an installed package the name is enough, on no index as well
    if _is_checkout() and any(name.startswith("[") for name in requirements):
        own, options = "." if Path.cwd() == ROOT else str(ROOT), ["-e"]
    names = [f"'{own}{name}'" if name.startswith("[") else name for name in requirements]
    return " ".join([*_installer(), *options, *names])


def reinstall_hint(*packages: str) -> str:
    """Return the command that installs packages again, by default those that this one needs."""
    own = shlex.quote(str(ROOT)) if _is_checkout() else DISTRIBUTION
    return " ".join([*_installer(), "--force-reinstall", *(packages or (own,))])


def find_file(name: str) -> Path:
    """Return the path of a file or folder such as "configs" or "docs/engines.md", where this copy has it.

    It is relative to the working directory where it lies below that.
    """
    folder = ROOT
    if not _is_checkout():
        folder = Path(sys.prefix, SHARE)
        for file in _list_files():
            before, mark, _ = str(file).partition(SHARE)
            if mark:
                folder = Path(before, SHARE)
                break
    path = folder / name
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _list_files() -> list[Path]:
    """Return the files of the installed distribution."""
    from importlib.metadata import PackageNotFoundError, files  # takes longer than the rest of a short command

    try:
        return [Path(os.path.abspath(file.locate())) for file in files(DISTRIBUTION) or ()]
    except PackageNotFoundError:
        return []


def _is_checkout() -> bool:
    return (ROOT / "pyproject.toml").is_file() and (ROOT / "configs").is_dir()


def _installer() -> list[str]:
    """Return the command that installs packages into the environment of this process."""
    prefix = Path(sys.prefix)
    if (prefix / "pipx_metadata.json").is_file():
        return ["pipx", "runpip", shlex.quote(prefix.name), "install"]
    settings = prefix / "pyvenv.cfg"
    if settings.is_file() and any(line.startswith("uv = ") for line in settings.read_text().splitlines()):
        return ["uv", "pip", "install", "--python", shlex.quote(str(prefix))]  # its environments have no pip
    pip = shutil.which("pip")
    if pip is not None and os.path.samefile(Path(pip).parent, Path(sys.executable).parent):
        return ["pip", "install"]
    return [shlex.quote(sys.executable), "-m", "pip", "install"]
