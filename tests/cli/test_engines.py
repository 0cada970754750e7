"""`stream-seg engines` through the real program, and every command of docs/engines.md."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import cv2
import numpy as np
import pytest

from stream_seg.backends.cpu import cpu_name
from stream_seg.backends.registry import BACKENDS, backend_names, precision_names
from stream_seg.cli.engines_table import format_age
from stream_seg.engines.cache import read_entries
from tests.support import small_networks
from tests.support.cache_entries import store_entry
from tests.support.clips import number_image, write_video
from tests.support.program import read_json, run_cli

PAGE = Path(__file__).parents[2] / "docs" / "engines.md"
RECIPES = sorted((Path(__file__).parents[2] / "engines").glob("*.yaml"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache beside the working directory."""
    monkeypatch.setenv("STREAM_SEG_CACHE", str(tmp_path / "engines"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "engines"


def run_engines(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Return exit code, standard output and standard error of `stream-seg engines ARGUMENTS`."""
    capfd.readouterr()
    code = run_cli("engines", *arguments)
    out, err = capfd.readouterr()
    return code, out, err


def test_an_empty_cache(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run_engines(capfd, "list", "--json", "list.json")
    assert (code, out) == (0, f"no engine in {cache}; build one with stream-seg engines build NETWORK\n")
    assert read_json(Path("list.json")) == {"folder": str(cache), "engines": [], "doubtful": []}
    assert run_engines(capfd, "verify")[:2] == (0, f"no engine in {cache}\n")
    assert run_engines(capfd, "prune")[:2] == (0, "0 engines removed\n")
    assert not cache.exists()


def test_build_list_show_verify_prune(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    small_networks.write_network(
        Path(), small_networks.make_model(outputs={"out": 3}), {"classes": small_networks.CLASSES}
    )
    build = ("build", "mine.onnx", "--backend", "onnxruntime", "--precision", "f32", "--json", "built.json")
    code, out, _ = run_engines(capfd, *build)
    built = read_json(Path("built.json"))
    assert (code, built["fresh"]) == (0, True)
    assert out.startswith(f"{built['name']}: built, f32 for onnxruntime on ")
    assert "there already" in run_engines(capfd, *build, "--overwrite")[1]
    code, out, _ = run_engines(capfd, "list")
    for cell in (built["name"].rpartition("-")[2][:8], "mine", "16x24", "f32", "onnxruntime", cpu_name().split()[0]):
        assert cell in out.splitlines()[1]  # a line for each engine, for grep
    code, out, _ = run_engines(capfd, "show", "mine", "--json", "shown.json")
    assert (code, built["sha256"][:40] in out) == (0, True)
    assert read_json(Path("shown.json"))["key"] == built["key"]
    assert run_engines(capfd, "verify")[0] == 0
    with (cache / built["file"]).open("ab") as file:
        file.write(b"x")
    code, out, err = run_engines(capfd, "verify", "--json", "verified.json")
    assert (code, err.count("\n"), "1 of 1 engines would not be loaded" in err) == (4, 1, True)
    assert "its size is not" in read_json(Path("verified.json"))[built["name"]]
    code, out, _ = run_engines(capfd, "prune")
    assert (code, out) == (0, f"removed {built['name']}\n1 engines removed\n")
    assert read_entries(cache) == ([], {})


def test_prune_removes_what_the_options_select(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from stream_seg.backends.choose import find_target

    target = find_target("onnxruntime")
    keys = {"backend": target.backend, "version": target.version, "device": target.device.name}
    young, aged = store_entry(cache, **keys), store_entry(cache, **keys, precision="int8")
    stale = store_entry(cache, **keys | {"version": "0.1"})
    month = aged.model_copy(update={"created": datetime.now(timezone.utc) - timedelta(days=31)})
    (cache / f"{aged.name}.json").write_text(month.model_dump_json())

    def names() -> set[str]:
        return {entry.name for entry in read_entries(cache)[0]}

    assert names() == {young.name, aged.name, stale.name}
    run_engines(capfd, "prune")
    assert names() == {young.name, aged.name}
    run_engines(capfd, "prune", "--older-than", 30)
    assert names() == {young.name}
    run_engines(capfd, "prune", "--all")
    assert names() == set()


@pytest.mark.parametrize("days", ["-1", "-0.1", "36501", "1e12", "nan", "inf"])
def test_prune_rejects_invalid_ages(cache: Path, capfd: pytest.CaptureFixture[str], days: str) -> None:
    from stream_seg.backends.choose import find_target

    target = find_target("onnxruntime")
    store_entry(cache, backend=target.backend, version=target.version, device=target.device.name)
    code, out, err = run_engines(capfd, "prune", "--older-than", days)
    assert (code, out) == (2, "")
    assert err == f"stream-seg: --older-than {float(days):g}: expected days, 0 to 36500\n"
    assert len(read_entries(cache)[0]) == 1
    assert run_engines(capfd, "prune", "--older-than", "36500")[:2] == (0, "0 engines removed\n")


def test_the_list_shows_entries_that_are_not_trusted(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    entry = store_entry(cache)
    (cache / f"{entry.name}.json").chmod(0o666)
    code, out, _ = run_engines(capfd, "list", "--json", "list.json")
    assert (code, "is writable by others (mode 666)" in out) == (0, True)
    assert len(read_json(Path("list.json"))["doubtful"]) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["build"], 2, "no network; name one"),
        (["build", "raod"], 2, "unknown network 'raod'"),
        (["build", "missing.onnx"], 4, "missing.onnx: no such file"),
        (["build", "road", "--size", "big"], 2, "--size big: expected HEIGHTxWIDTH"),
        (["build", "road", "--size", "64x90"], 4, "64x90 does not fit its strides (operator Add); 64x96 does"),
        (["build", "road", "--images", "8"], 2, "images: needs calibrate, a folder of images or a video"),
        (["build", "road", "--recipe", "batch.yaml"], 2, "batch.yaml: unknown key 'batch'"),
        (
            ["build", "road", "--backend", "tensorflow"],
            2,
            "unknown backend 'tensorflow', did you mean tensorrt?",
        ),
        (["build", "road", "--precision", "int4"], 2, "precision 'int4'"),
        (["build", "road", "--compute-capability", "new"], 2, "compute_capability"),
        (["build", "road", "--calibrate", "empty"], 3, "contains no image"),
        (["build", "road", "--calibrate", "nowhere"], 3, "no such file"),
        (["build", "road", "--recipe", "no.yaml"], 2, "no.yaml: no such file"),
        (
            ["build", "road", "--recipe", "bad.yaml"],
            2,
            "bad.yaml: unknown key 'precison', did you mean precision?",
        ),
        (["build", "external.onnx"], 4, "its external data must be files in its own folder"),
        (["build", "operator.onnx"], 4, "unknown operators: NoSuchOperator"),
        (["build", "dynamic.onnx"], 2, "size: is required"),
        (["show", "nothing"], 2, "engine 'nothing' is not in the cache"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_errors_are_one_line(
    cache: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], code: int, line: str
) -> None:
    Path("empty").mkdir()
    Path("bad.yaml").write_text("{network: road, precison: int8}")
    Path("batch.yaml").write_text("{network: road, batch: 4}")
    Path("bad.pth").write_bytes(b"cos\nsystem\n(S'touch canary'\ntR.")
    write_faulty_networks()
    status, out, err = run_engines(capfd, *arguments)
    assert (status, out, err.count("\n")) == (code, "", 1), err
    assert err.startswith("stream-seg: ")
    assert line in err
    assert not Path("canary").exists()
    assert read_entries(cache) == ([], {})


def write_faulty_networks() -> None:
    import onnx

    classes = {"classes": small_networks.CLASSES}
    operator = small_networks.make_model(outputs={"out": 3})
    operator.graph.node[0].op_type = "NoSuchOperator"
    small_networks.write_network(Path(), operator, classes, name="operator")
    small_networks.write_network(
        Path(), small_networks.make_model(outputs={"out": 3}, size=("h", "w")), classes, name="dynamic"
    )
    path = small_networks.write_network(Path(), small_networks.make_model(outputs={"out": 3}), classes, name="external")
    model = onnx.load(path)
    onnx.external_data_helper.convert_model_to_external_data(model, location="weights.bin", size_threshold=0)
    onnx.save(model, path)
    Path("weights.bin").rename("../weights.bin")
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for part in tensor.external_data:
            part.value = "../weights.bin" if part.key == "location" else part.value
    path.write_bytes(model.SerializeToString())


def test_the_help_lists_registered_backends(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "fifth", replace(BACKENDS["torch"], precisions=("int4", "f32")))
    code, out, _ = run_engines(capfd, "build", "--help")
    words = set(re.findall(r"\w+", out))
    assert code == 0
    assert {*backend_names(), *precision_names()} <= words
    assert {"fifth", "int4"} <= words


def test_a_cache_that_others_can_write_to_is_one_line(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cache.mkdir()
    cache.chmod(0o777)
    for command in ("list", "verify", "prune"):
        code, out, err = run_engines(capfd, command)
        assert (code, out, err.count("\n")) == (4, "", 1)
        assert "is writable by others (mode 777)" in err
    code, _, err = run_engines(capfd, "build", "road", "--backend", "onnxruntime", "--precision", "f32")
    assert (code, err.count("\n"), list(cache.iterdir())) == (4, 1, [])


def test_ages() -> None:
    now = datetime(2030, 1, 10, tzinfo=timezone.utc)
    ages = [format_age(now - timedelta(seconds=s), now=now) for s in (5, 59, 60, 7199, 7200, 86399, 86400 * 3, -5)]
    assert ages == ["5 s", "59 s", "1 min", "1 h", "2 h", "23 h", "3 d", "0 s"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_recipes_are_valid(path: Path) -> None:
    from stream_seg.engines.recipe import EngineRecipe
    from stream_seg.schema.validation import validate
    from stream_seg.schema.yaml import read_yaml

    assert validate(EngineRecipe, read_yaml(path), where=path.name).network == "road"


def page_commands() -> list[list[str]]:
    """Return the arguments of every command of the page, in its order."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert all(line.startswith("stream-seg ") for line in lines)
    return [shlex.split(line)[1:] for line in lines]


@pytest.mark.timeout(300)
def test_every_command_of_the_page_runs(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("tensorrt_rtx")
    from stream_seg.zoo import build_network

    torch.manual_seed(0)
    torch.save(build_network("road", 3).state_dict(), "weights.pth")
    write_video(Path("drive.mp4"), (number_image(n) for n in range(6)))
    small_networks.write_network(
        Path(), small_networks.make_model(outputs={"out": 3}), {"classes": small_networks.CLASSES}
    )
    Path("mine_int8.yaml").write_text("{network: mine.onnx, precision: int8, calibrate: pictures, agreement: 90}")
    Path("pictures").mkdir()
    Path("truth").mkdir()
    for seed in range(8):
        cv2.imwrite(f"pictures/{seed}.png", small_networks.make_image(seed=seed))
        cv2.imwrite(f"truth/{seed}.png", np.full(small_networks.SIZE, seed % 3, np.uint8))
    commands = page_commands()
    for arguments in commands:
        capfd.readouterr()
        assert run_cli(*arguments) == 0, (arguments, capfd.readouterr().err)
    assert Path("out.mp4").stat().st_size > 0
    listed = {
        (e["network"], e["key"]["backend"]): e["key"]["precision"] for e in read_json(Path("engines.json"))["engines"]
    }
    assert {("mine", "openvino"), ("trained", "openvino")} <= set(listed)
    assert listed["mine", "openvino"] == "int8"
    verbs = {arguments[1] for arguments in commands if arguments[0] == "engines"}
    assert verbs == {"build", "list", "show", "verify", "prune"}, "the control: the page shows every command"
