"""Kill a recorder, and compare its file with the frames that it had been handed."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import pytest

from stream_seg.errors import OutputError
from stream_seg.frame import Frame
from stream_seg.stages.encoder import SPEEDS, Speed
from stream_seg.stages.write import Write
from tests.support.clips import BITS, is_ordinary_mp4, list_boxes, number_image, read_number, read_video
from tests.support.program import list_folder
from tests.support.recording_program import RATE, SIZE

DELAY = {".mp4": 10, ".mkv": 2}
"""Frames that a kill may cost: one in the encoder, and a fragment in the container, of 250 ms and of one frame."""


class Kill(NamedTuple):
    """The ledger of a killed program: (number, time of the hand-over in ns) of each frame that the recorder took."""

    ledger: list[tuple[int, int]]
    killed_ns: int


def kill_recorder(
    path: Path, *, after: float, by: signal.Signals = signal.SIGKILL, writer: str = "write", paced: bool = False
) -> Kill:
    """Record to `path`, and send a signal after so many frames, or with `paced` after so many seconds."""
    command = [sys.executable, "-m", "tests.support.recording_program", str(path), writer, *([str(RATE)] * paced)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        ledger = [program.stdout.readline()]
        start_s = time.monotonic()
        while (time.monotonic() - start_s if paced else len(ledger)) < after:
            ledger.append(program.stdout.readline())
        killed_ns = time.monotonic_ns()
        program.send_signal(by)
        ledger.extend(program.stdout)
    assert program.returncode == -by
    numbers = [re.fullmatch(r"(\d+) (\d+)\n", line) for line in ledger]
    return Kill([(int(match[1]), int(match[2])) for match in numbers if match], killed_ns)


def salvage(path: Path) -> list[int]:
    """Return the numbers of the frames that a player gets. Raises FFmpegError if the file does not open."""
    numbers: list[int] = []
    with av.open(str(path)) as container, suppress(av.InvalidDataError):
        numbers.extend(read_number(frame.to_ndarray(format="bgr24")) for frame in container.decode(video=0))
    return numbers


def check_salvage(path: Path, taken: int) -> None:
    """Check that a file has the frames that a recorder took, up to its delay, and nothing else."""
    numbers, expected = salvage(path), taken - DELAY[path.suffix]
    assert expected <= len(numbers) <= taken + 1
    assert numbers[:expected] == [number % 2**BITS for number in range(expected)]


def frames(number: int) -> Iterator[Frame]:
    for seq in range(number):
        yield Frame("front", seq, seq, Fraction(1, RATE), 0, number_image(seq, SIZE))


@pytest.mark.parametrize(
    ("suffix", "by"), [(".mp4", signal.SIGKILL), (".mkv", signal.SIGKILL), (".mp4", signal.SIGSEGV)]
)
def test_a_kill_costs_a_fragment_at_most(tmp_path: Path, suffix: str, by: signal.Signals) -> None:
    path = tmp_path / f"out{suffix}"
    after = random.Random(f"{suffix}{by}").randrange(20, 120)
    kill = kill_recorder(path, after=after, by=by)
    assert list_folder(tmp_path) == [f"out.partial{suffix}"]
    check_salvage(tmp_path / f"out.partial{suffix}", len(kill.ledger))


def test_the_control_loses_everything(tmp_path: Path) -> None:
    """Without fragments a killed recording does not open: the tests above can tell."""
    path = tmp_path / "out.mp4"
    assert len(kill_recorder(path, after=60, writer="plain").ledger) >= 60
    with pytest.raises(av.FFmpegError):
        salvage(path)


@pytest.mark.soak
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_twenty_kills_cost_at_most_a_second_each(tmp_path: Path, suffix: str) -> None:
    """At 30 frames/s in real time: every frame that was handed over a second before the kill is there."""
    for seed in range(20):
        path = tmp_path / f"{seed}{suffix}"
        kill = kill_recorder(path, after=random.Random(seed).uniform(1.2, 4), paced=True)
        early = [number for number, handed_ns in kill.ledger if handed_ns < kill.killed_ns - 10**9]
        assert len(early) > 3
        assert salvage(path.with_name(f"{seed}.partial{suffix}"))[: len(early)] == early


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_file_cut_anywhere_plays_up_to_there(tmp_path: Path, suffix: str) -> None:
    """Except within the header of a fragment, where FFmpeg may refuse an MP4; a kill does not cut there, since a
    fragment is written at once."""
    partial = tmp_path / f"out.partial{suffix}"
    stage = Write(tmp_path / f"out{suffix}")(frames(60))
    sizes = [partial.stat().st_size for _ in stage]
    stage = Write(tmp_path / f"again{suffix}")(frames(60))
    for _ in range(60):
        next(stage)
    content = (tmp_path / f"again.partial{suffix}").read_bytes()
    assert len(content) == sizes[-1]
    headers = list_boxes(content) if suffix == ".mp4" else []
    chance = random.Random(suffix)
    for _ in range(30):
        cut = chance.randrange(sizes[12], len(content))
        if any(box.kind == "moof" and box.begin < cut < box.end for box in headers):
            continue
        (tmp_path / f"cut{suffix}").write_bytes(content[:cut])
        check_salvage(tmp_path / f"cut{suffix}", sum(size <= cut for size in sizes))


@pytest.mark.parametrize("speed", SPEEDS)
def test_a_growing_file_plays_up_to_its_delay_at_every_speed(tmp_path: Path, speed: Speed) -> None:
    stage = Write(tmp_path / "out.mp4", speed=speed)(frames(40))
    for taken in range(1, 41):
        next(stage)
        if taken in {15, 25, 40}:
            check_salvage(tmp_path / "out.partial.mp4", taken)


def test_the_next_run_leaves_the_file_of_a_killed_one_alone(tmp_path: Path) -> None:
    path, leftover = tmp_path / "out.mp4", tmp_path / "out.partial.mp4"
    kill_recorder(path, after=20)
    before = leftover.read_bytes()
    stage = Write(path)(frames(5))
    next(stage)
    assert list_folder(tmp_path) == ["out.partial-2.mp4", "out.partial.mp4"]
    with pytest.raises(OutputError, match=r"out\.mp4: another output is writing it"):
        next(Write(path)(frames(5)))
    assert len(list(stage)) == 4
    assert list_folder(tmp_path) == ["out.mp4", "out.partial.mp4"]
    assert leftover.read_bytes() == before
    assert len(read_video(path)) == 5
    assert is_ordinary_mp4(path)
