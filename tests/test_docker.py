"""Test the Dockerfiles: hadolint, the user, the context, and the health check against a real server."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.page_client import make_segmented_frame, run_page

ROOT = Path(__file__).parents[1]
DOCKERFILES = ("Dockerfile", "Dockerfile.nvidia")
NEEDED = ("pyproject.toml", "constraints.txt", "README.md", "LICENSE", "stream_seg/x.py", "stream_seg/shipped/x.json")
UNWANTED = (
    ".git/HEAD",
    ".venv/bin/python",
    "tests/conftest.py",
    "stream_seg/web/__pycache__/app.pyc",
    "key.pem",
    "monitoring/metrics.token",
    ".env",
    "recordings/front.mp4",
)


def read_instructions(name: str) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile with their arguments, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / name).read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines if line.strip()]


def arguments_of(instruction: str, name: str) -> list[str]:
    return [arguments for keyword, arguments in read_instructions(name) if keyword == instruction]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_finds_nothing(name: str) -> None:
    program = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if program is None:
        pytest.skip("hadolint is not installed")
    checked = subprocess.run([program, name], cwd=ROOT, capture_output=True, text=True)
    assert (checked.returncode, checked.stdout) == (0, "")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_runs_the_program_as_an_ordinary_user(name: str) -> None:
    *_, (_, user) = [pair for pair in read_instructions(name) if pair[0] == "USER"]
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)  # numbers, which Kubernetes can check
    assert json.loads(arguments_of("ENTRYPOINT", name)[-1]) == ["stream-seg"]
    for image in arguments_of("FROM", name):
        assert re.fullmatch(r"\S+:\d\S*( AS \w+)?", image), image  # a tag other than latest


def is_ignored(path: str) -> bool:
    """Return whether .dockerignore leaves out a file: a pattern matches it or one of its folders, **/ at any depth."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    parts = [path, *(str(parent) for parent in Path(path).parents)]
    names = [Path(part).name for part in parts]
    return any(
        fnmatch.filter(names, pattern[3:]) if pattern.startswith("**/") else fnmatch.filter(parts, pattern)
        for pattern in patterns
    )


def test_the_context_has_what_the_package_needs_and_no_secrets() -> None:
    data = re.findall(r'^"share/stream-seg[^"]*" = \["([^"*]*)', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert len(data) > 5
    assert [path for path in (*NEEDED, *(f"{folder}x.md" for folder in data)) if is_ignored(path)] == []
    assert [path for path in UNWANTED if not is_ignored(path)] == []


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_health_check_follows_the_server(name: str, unused_port: int) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    (health,) = arguments_of("HEALTHCHECK", name)
    command = json.loads(health.partition("CMD ")[2])
    (url,) = re.findall(r"HEALTH_URL=(\S+)", arguments_of("ENV", name)[-1])
    environment = {**os.environ, "HEALTH_URL": url.replace("8080", str(unused_port))}
    assert subprocess.run(command, env=environment, capture_output=True).returncode == 1
    with run_page(port=unused_port) as page:
        page.put(make_segmented_frame(0))
        assert subprocess.run(command, env=environment, capture_output=True).returncode == 0
