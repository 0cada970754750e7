"""The process of the command line: errors in one line, broken standard streams, and limits of the machine."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml
import zmq

from stream_seg.cli.guard import raise_file_limit
from stream_seg.errors import StreamSegError
from stream_seg.runtime.graph import Graph
from tests.support.fake_stages import Camera, Ledger, Work, make_chain, make_config, run_graph
from tests.support.program import ENDLESS_DRIVE, count_lines, list_folder, run_cli, run_failing
from tests.support.time_limits import TimeLimit

COMMANDS = {
    "run": "stream_seg.cli.run.run",
    "networks": "stream_seg.cli.listing.list_networks",
    "stages": "stream_seg.cli.listing.describe_stages",
    "doctor": "stream_seg.cli.doctor.examine",
    "bench": "stream_seg.cli.bench.run_benchmark",
}
"""Each with a function that it calls."""
SHORT = f"{ENDLESS_DRIVE}&frames=3"


def fail_with(error: BaseException) -> Callable[..., None]:
    """Return a function that raises an error."""

    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (EOFError("Ran out of input"), 1, "unexpected end of data: EOFError: Ran out of input"),
        (MemoryError(), 1, "not enough memory (see ulimit -v): MemoryError"),
        (RuntimeError("can't start new thread"), 1, "no further thread can be started; allow more threads or memory"),
        (OSError(errno.EMFILE, "Too many open files"), 1, "too many open files; allow more (ulimit -n)"),
        (OSError(errno.ENOSPC, "No space left on device"), 5, "cannot write to standard output: disk full"),
        (ImportError("libx.so: failed to map segment from shared object"), 1, "libx.so: failed to map segment from"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_from_anywhere_is_one_line(
    command: str,
    error: Exception,
    code: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(COMMANDS[command], fail_with(error))
    assert run_cli(command, *([SHORT, "o.jsonl"] if command == "run" else [])) == code
    (shown,) = capfd.readouterr().err.splitlines()
    assert shown.startswith(f"stream-seg: {line}")


def test_an_error_that_nobody_expects_has_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(COMMANDS["networks"], fail_with(ZeroDivisionError("no way")))
    with pytest.raises(ZeroDivisionError):
        run_cli("networks")


def test_ctrl_c_of_a_command_is_no_abort(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(COMMANDS["bench"], fail_with(KeyboardInterrupt()))
    assert run_cli("bench") == 130
    assert "Abort" not in "".join(capfd.readouterr())


Done = subprocess.CompletedProcess[str]


def run_program(*arguments: object, shell: str, cwd: Path | None = None) -> Done:
    """Run `stream-seg ARGUMENTS` through a shell, which redirects its streams or limits its resources."""
    command = ["bash", "-c", shell, "bash", sys.executable, "-m", "stream_seg", *map(str, arguments)]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=cwd, env=buffered)


@pytest.mark.parametrize("command", ["stages", "networks", "--help"])
def test_a_reader_that_has_read_enough(command: str) -> None:
    done = run_program(command, shell='"$@" | head -c 1; exit ${PIPESTATUS[0]}')
    assert (done.returncode, len(done.stdout), done.stderr) == (0, 1, "")


@pytest.mark.parametrize("command", ["stages", "--help", "--version"])
def test_a_full_disk_under_standard_output(command: str) -> None:
    done = run_program(command, shell='exec "$@" > /dev/full')
    assert (done.returncode, done.stderr) == (5, "stream-seg: cannot write to standard output: disk full\n")


def test_a_full_disk_under_standard_output_hides_no_other_error(tmp_path: Path) -> None:
    done = run_program("run", tmp_path / "missing.mp4", tmp_path / "o.jsonl", shell='exec "$@" > /dev/full')
    assert done.returncode == 3
    assert "missing.mp4" in done.stderr


@pytest.mark.parametrize("shell", ['exec "$@" 2> /dev/full', 'exec "$@" 2>&1 >&- | head -c 0', 'exec "$@" 2>&- >&-'])
def test_messages_that_cannot_be_written_end_no_run(shell: str, tmp_path: Path) -> None:
    """Its lines about the metrics and its progress fail; so would those of the log."""
    run_program("run", SHORT, tmp_path / "o.jsonl", "--metrics-port", 0, "-v", shell=shell)
    assert count_lines(tmp_path / "o.jsonl") == 3
    assert list_folder(tmp_path) == ["o.jsonl"]


SHOUT = """
import os
from dataclasses import dataclass

@dataclass
class Shout:
    def __call__(self, frames):
        for frame in frames:
            os.write(1, b"to standard output\\n")
            os.write(2, b"to standard error\\n")
            yield frame
"""


def test_messages_of_libraries_do_not_get_into_files_if_a_standard_stream_is_closed(tmp_path: Path) -> None:
    """The first file that is opened would get the number of a stream that is closed."""
    (tmp_path / "shout.py").write_text(SHOUT)
    stages = {
        "synthetic": {"width": 96, "height": 64, "frames": 20},
        "shout": {"stage": "shout.py:Shout", "input": "synthetic"},
        "segment": {"input": "shout"},
        "records": {"input": "segment", "path": str(tmp_path / "o.jsonl")},
    }
    (tmp_path / "g.yaml").write_text(yaml.safe_dump({"stages": stages}))
    done = run_program("run", "--config", tmp_path / "g.yaml", shell='exec "$@" 0<&- 1>&- 2>&-')
    assert done.returncode == 0
    lines = (tmp_path / "o.jsonl").read_text().splitlines()
    assert [json.loads(line)["seq"] for line in lines] == list(range(20))


@pytest.mark.parametrize("files", [8, 16])  # at 8, ZeroMQ would abort
def test_a_limit_on_open_files_is_one_line(files: int, tmp_path: Path) -> None:
    check_limit(run_program("run", SHORT, "o.jsonl", shell=f'ulimit -n {files}; exec "$@"', cwd=tmp_path))
    assert list_folder(tmp_path) == []


@pytest.mark.parametrize("mebibytes", [128, 512, 1000])
def test_a_limit_on_memory_is_one_line(mebibytes: int, tmp_path: Path) -> None:
    shell = f'ulimit -v {1024 * mebibytes}; exec "$@"'
    check_limit(run_program("run", SHORT, "o.jsonl", shell=shell, cwd=tmp_path))
    assert list_folder(tmp_path) == []


def check_limit(done: Done) -> None:
    """Assert that a program ended with one line that names the limit."""
    assert done.returncode == 1
    assert re.fullmatch(r"stream-seg: [^\n]*\(ulimit -[nv]\)\n", done.stderr)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_every_limit_on_open_files_is_one_line_or_none(tmp_path: Path) -> None:
    codes = []
    for files in range(5, 40):
        done = run_program("run", SHORT, f"o{files}.jsonl", "-q", shell=f'ulimit -n {files}; exec "$@"', cwd=tmp_path)
        codes.append(done.returncode)
        one_line = re.fullmatch(r"stream-seg: [^\n]*open files[^\n]*\n", done.stderr)
        assert one_line if done.returncode else done.stderr == ""
    assert codes[0] != 0
    assert codes[-1] == 0


def test_the_soft_limit_on_files_is_raised_to_what_a_graph_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, limit: limits.append(limit))
    endless = resource.RLIM_INFINITY
    for soft, hard in ((1024, 4096), (1024, 2000), (1024, endless), (8192, 8192), (endless, endless)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limit=(soft, hard): limit)
        raise_file_limit(500)
    assert limits == [(2256, 4096), (2000, 2000), (2256, endless)]
    raise_file_limit(10)
    assert len(limits) == 3


def test_many_outputs_under_a_small_soft_limit(tmp_path: Path) -> None:
    outputs = [f"o{number}.jsonl" for number in range(60)]
    done = run_program("run", SHORT, *outputs, "-q", shell='ulimit -Sn 100; exec "$@"', cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert {count_lines(tmp_path / name) for name in outputs} == {3}


def write_chain(path: Path, stages: int) -> Path:
    """Write a graph in which so many stages follow each other."""
    lines = ["stages:", "  synthetic: {}", "  s0: {stage: smooth, input: synthetic}"]
    lines += [f"  s{number}: {{stage: smooth, input: s{number - 1}}}" for number in range(1, stages)]
    path.write_text("\n".join(lines))
    return path


def test_ten_thousand_stages_and_two_thousand_outputs_are_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], time_limit: TimeLimit
) -> None:
    with time_limit(10):
        code, line = run_failing(capfd, "--config", write_chain(tmp_path / "chain.yaml", 10_000))
    assert code == 2
    assert line.endswith("chain.yaml: stages: 10001 stages and 10000 links are 20001 threads; the most is 1000")
    with time_limit(10):
        code, line = run_failing(capfd, SHORT, *(tmp_path / f"{number}.jsonl" for number in range(2000)))
    assert code == 2
    assert line.endswith("the most is 1000")
    assert list_folder(tmp_path) == ["chain.yaml"]


def test_a_long_chain_of_stages_runs() -> None:
    chain = make_chain(Camera(3), Work(), sink := Ledger())
    nodes = [chain[0]]
    for number in range(100):
        nodes.append(type(chain[1])(f"work{number}", "smooth", (nodes[-1].name,), None, chain[1].stage))
    nodes.append(type(chain[2])("sink", "output", (nodes[-1].name,), None, chain[2].stage))
    run_graph(nodes)
    assert sink.numbers == [0, 1, 2]


@pytest.mark.parametrize("number", range(1, 7))
@pytest.mark.parametrize("kind", ["thread", "socket"])
def test_a_graph_that_cannot_start_all_its_threads_leaves_nothing(
    kind: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """camera -> work -> sink: two links, three stages and the watchdog are six threads, and five sockets."""
    threads, files, calls = threading.active_count(), psutil.Process().num_fds(), 0
    start, socket = threading.Thread.start, zmq.Context.socket

    def count(failure: Exception) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            raise failure

    def start_counted(self: threading.Thread) -> None:
        count(RuntimeError("can't start new thread"))
        start(self)

    def socket_counted(self: zmq.Context[zmq.Socket[bytes]], *arguments: int) -> zmq.Socket[bytes]:
        count(zmq.ZMQError(errno.EMFILE))
        return socket(self, *arguments)

    with monkeypatch.context() as patch:
        if kind == "thread":
            patch.setattr(threading.Thread, "start", start_counted)
        else:
            patch.setattr(zmq.Context, "socket", socket_counted)
        graph = Graph(make_config(make_chain(Camera(1_000_000), Work(), Ledger())))
        if kind == "socket" and number == 6:
            with graph:
                return
        match = r"^cannot start 3 stages: (no further thread|too many open files)"
        with pytest.raises(StreamSegError, match=match), graph:
            pass
    for worker in graph.workers:
        if worker.thread.ident is not None:
            worker.thread.join(10)
    for thread in threading.enumerate():
        if thread.name.startswith("link "):
            thread.join(10)
    assert threading.active_count() == threads
    assert psutil.Process().num_fds() <= files + 1
    run_graph(make_chain(Camera(3), Work(), Ledger()))


def test_environment_without_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The counterpart of the limits above: without one the same run writes its frames."""
    monkeypatch.chdir(tmp_path)
    assert run_cli("run", SHORT, "o.jsonl", "-q") == 0
    assert count_lines(Path("o.jsonl")) == 3
    assert os.listdir() == ["o.jsonl"]
