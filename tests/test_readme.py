"""Every command and every Python block of README and of the pages on Python runs as printed, in a fresh checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.program import ENDLESS_DRIVE

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/python.md", "docs/own_stage.md")
SKIPPED = ("make ", ". .venv/", "pip install", "apt install")
"""Commands that set the environment up: `make demo` and `make test` are how these tests come to run."""

CLIP = "stream-seg run --config examples/drive.yaml"
"""The command that writes the clip of the commands after it."""


def blocks(page: str, language: str) -> list[str]:
    """Return the code blocks of a page in a language."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        body for name, body in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) if name == language
    ]


def commands() -> list[str]:
    """Return the commands of README that need no hardware."""
    lines = [line for block in blocks("README.md", "") for line in block.splitlines() if line.strip()]
    return [line for line in lines if not line.startswith((*SKIPPED, CLIP)) and "# needs " not in line]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the files of the repository, with a short form of the clip that the first command of README writes."""
    folder = tmp_path_factory.mktemp("checkout")
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith(("tests/", "docs/images/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    run(f"{CLIP} --set synthetic.frames=12", folder)
    return folder


@pytest.fixture
def fresh(checkout: Path, tmp_path: Path) -> Path:
    """A checkout in which the commands of README have not written their files."""
    for name in ("stream_seg", "examples", "docs", "drive.mp4"):
        (tmp_path / name).symlink_to(checkout / name)
    return tmp_path


def run(command: list[str] | str, folder: Path) -> str:
    """Run a command in a checkout with its package and this environment's programs. Return its output."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    result = subprocess.run(
        command,
        shell=isinstance(command, str),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "PATH": path},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_readme_has_commands() -> None:
    assert len(commands()) > 10
    assert CLIP in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_readme(command: str, checkout: Path) -> None:
    run(command, checkout)


@pytest.mark.parametrize(
    ("page", "number"), [(page, number) for page in PAGES for number in range(len(blocks(page, "python")))]
)
def test_a_python_block(page: str, number: int, checkout: Path, fresh: Path) -> None:
    run([sys.executable, "-c", blocks(page, "python")[number]], checkout if page == "README.md" else fresh)


def test_the_stage_of_the_page_runs_in_the_graph_of_the_page(fresh: Path) -> None:
    (fresh / "my_stages.py").write_text(blocks("docs/own_stage.md", "python")[0])
    (fresh / "graph.yaml").write_text(blocks("docs/own_stage.md", "yaml")[0])
    assert "20 in, 20 out" in run(["stream-seg", "run", "--config", "graph.yaml"], fresh)


@pytest.mark.parametrize(
    ("example", "arguments", "expected"),
    [
        ("class_shares.py", [], "time_s,sky,building"),
        ("numpy_in_out.py", [], "labels (360, 640) uint8"),
        ("stage_in_python.py", [], "20 frames"),
        ("folder_to_masks.py", ["images", "labels"], "3 label maps in labels/"),
        ("prelabel_video.py", ["drive.mp4", "labelled", "0.1"], "4 images in labelled/train/"),
        ("two_cameras_alerts.py", ["drive.mp4", "other.mp4", "0"], "late_frames_total"),
        ("own_onnx.py", ["mine.onnx", "ground,wall,sky", "drive.mp4", "own.jsonl"], "12 frames at"),
    ],
)
def test_an_example(example: str, arguments: list[str], expected: str, checkout: Path) -> None:
    prepare(checkout)
    assert expected in run([sys.executable, f"examples/{example}", *arguments], checkout)


def prepare(folder: Path) -> None:
    """Put the inputs of the examples into a checkout: images, a second video, and an ONNX network."""
    import cv2
    import numpy as np
    from onnx import save

    from tests.support import small_networks

    (folder / "images").mkdir(exist_ok=True)
    for number in range(3):
        cv2.imwrite(str(folder / "images" / f"{number}.png"), np.full((48, 64, 3), 80 * number, np.uint8))
    shutil.copy(folder / "drive.mp4", folder / "other.mp4")
    save(small_networks.make_model(outputs={"scores": 3}), str(folder / "mine.onnx"))


@pytest.mark.parametrize("settings", [["webcam_to_page.yaml", "--set", "serve.port=0"], ["blur_people.yaml"]])
def test_a_graph_of_the_examples(settings: list[str], checkout: Path) -> None:
    name, *options = settings
    source = f"{ENDLESS_DRIVE}&frames=12&paced=1"
    assert "dropped" in run(["stream-seg", "run", source, "--config", f"examples/{name}", *options], checkout)


def test_every_example_is_listed_and_tested() -> None:
    listed = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    tested = Path(__file__).read_text(encoding="utf-8")
    for file in (ROOT / "examples").iterdir():
        if file.suffix in (".py", ".yaml"):
            assert f"]({file.name})" in listed
            assert file.name in tested or file.name == "blur_people.py"
            assert len(file.read_text().splitlines()) <= 44
