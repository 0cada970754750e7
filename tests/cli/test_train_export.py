"""Tests of `stream-seg train` and `stream-seg export` on the command line."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from torchvision.models import get_model

from stream_seg.datasets.labelled import Pairs
from stream_seg.datasets.palettes import CAMVID
from stream_seg.engines.accuracy_gate import Limits
from stream_seg.errors import ConfigError
from stream_seg.evaluation.images import evaluate_images
from stream_seg.network.network import open_network
from stream_seg.network.shipped import SHIPPED
from stream_seg.network.sidecar import make_classes
from stream_seg.stages.segment import Segment
from stream_seg.training import loop
from stream_seg.training.checkpoint import Run
from stream_seg.training.export import NetworkInfo, calibration_set, export_network
from stream_seg.training.loop import train
from stream_seg.training.model_card import format_model_card
from stream_seg.training.recipe import read_recipe
from stream_seg.training.setup import prepare_job
from stream_seg.zoo import build_network
from stream_seg.zoo.weights.input_spec import InputSpec
from stream_seg.zoo.weights.source import open_weights
from tests.support.coloured_fields import NAMES, coloured_fields, recipe_file, write_split
from tests.support.frames import make_frame
from tests.support.program import count_lines, run_cli, start_program, wait_until

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),  # of torch and nncf
    pytest.mark.timeout(300),  # a training with its export takes 20 s, on a busy machine over 100 s
]


def run_refused(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Run a command that fails. Return its exit code and its one line on standard error."""
    capfd.readouterr()
    code = run_cli(*arguments)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return code, lines[0].removeprefix("stream-seg: ")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with labelled images and a trained network in out/."""
    folder = tmp_path_factory.mktemp("own")
    write_split(folder, coloured_fields(12), "train")
    write_split(folder, coloured_fields(4, seed=1), "val")
    recipe = recipe_file(folder, steps=50, val="val", validate_every=25, ema=0.9)
    assert run_cli("train", recipe, "--out", folder / "out") == 0
    return folder


def test_training_writes_checkpoints_plots_and_the_network(folder: Path) -> None:
    written = {path.name for path in (folder / "out").iterdir()}
    files = {"last.pt", "best.pt", "log.jsonl", "curves.png", "samples.png"}
    assert written == files | {"road.onnx", "road_int8.onnx", "road.json", "road.md"}
    sidecar = json.loads((folder / "out" / "road.json").read_text())
    assert (sidecar["classes"], sidecar["size"], sidecar["mean_bgr"]) == (NAMES, [64, 96], [0.4, 0.4, 0.4])


def test_a_trained_network_runs_as_accurately_as_its_card_states(folder: Path) -> None:
    onnx, text = folder / "out" / "road.onnx", (folder / "out" / "road.md").read_text()
    for precision in ("f32", "int8"):
        figures = evaluate_images(onnx, folder, precision=precision)
        assert figures["miou"] > 0.85
        assert f"{100 * figures['miou']:.1f}" in text
        (segmented,) = Segment(network=str(onnx), precision=precision)(iter([make_frame(3, size=(48, 70))]))  # type: ignore[arg-type]
        assert segmented.semantic is not None
        assert segmented.semantic.engine.precision == precision
    best = torch.load(folder / "out" / "best.pt", weights_only=True)["best"]
    assert evaluate_images(onnx, folder, precision="f32")["miou"] == pytest.approx(best, abs=0.01)
    assert "12 images of train; 4 of val" in text
    assert "licence | TO BE FILLED IN" in text


def test_a_finished_run_is_not_overwritten(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, line = run_refused(capfd, "train", folder / "fields.yaml", "--out", folder / "out")
    assert (code, line) == (
        5,
        f"{folder / 'out/last.pt'} exists; --resume resumes from it, --overwrite starts again; or choose another --out",
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [(name, []) for name in ("best.pt", "log.jsonl", "curves.png", "samples.png")]
    + [(name, ["--resume"]) for name in ("road.onnx", "road.json", "road_int8.onnx", "road.md")],
)
def test_files_of_others_in_the_folder_of_a_run_are_not_replaced(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, options: list[str]
) -> None:
    (tmp_path / name).write_text("mine")
    code, line = run_refused(capfd, "train", folder / "fields.yaml", "--out", tmp_path, *options)
    assert (code, f"cannot write {tmp_path / name}: the file exists" in line) == (5, True)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


def test_weights_that_a_training_starts_from_are_never_replaced(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(folder / "out" / "best.pt", tmp_path)
    recipe = recipe_file(folder, start=str(tmp_path / "best.pt"))
    code, line = run_refused(capfd, "train", recipe, "--out", tmp_path, "--overwrite")
    assert (code, line) == (5, f"{tmp_path / 'best.pt'}: is an input as well; choose another name")
    assert (tmp_path / "best.pt").read_bytes() == (folder / "out" / "best.pt").read_bytes()


@pytest.mark.parametrize("name", ["x.onnx", "x.json", "x_int8.onnx", "x.safetensors"])
def test_an_export_replaces_no_file_and_never_its_weights(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / name).write_text("mine")
    out = tmp_path / ("x.onnx" if name != "x.safetensors" else name)
    code, line = run_refused(capfd, "export", "road", "--weights", folder / "out" / "best.pt", "--out", out)
    assert (code, f"cannot write {tmp_path / name}: the file exists" in line) == (5, True)
    link = tmp_path / "link.safetensors"
    link.symlink_to(tmp_path / name)
    for weights in (tmp_path / name, link):
        code, line = run_refused(capfd, "export", "road", "--weights", weights, "--out", out, "--overwrite")
        assert (code, line) == (5, f"{tmp_path / name}: is an input as well; choose another name")
    assert (tmp_path / name).read_text() == "mine"


def test_a_killed_run_resumes(folder: Path, tmp_path: Path) -> None:
    write_split(tmp_path, coloured_fields(6), "train")
    recipe = recipe_file(tmp_path, steps=30, save_every=3, held_back=0.34, validate_every=4)
    with start_program("train", recipe, "--out", tmp_path / "out") as program:
        wait_until((tmp_path / "out" / "last.pt").exists, program, within_s=90)
        program.send_signal(signal.SIGKILL)
        program.wait()
    step = torch.load(tmp_path / "out" / "last.pt", weights_only=True)["step"]
    assert 3 <= step < 30
    resumed = train(prepare_job(read_recipe(recipe), where="r"), out=tmp_path / "out", resume=True)
    assert resumed.step == 30
    log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in log if "loss" in line]
    assert steps == sorted(set(steps))  # no duplicates; test_training.py compares the weights
    assert steps[-1] == 30


def test_an_interrupted_run_saves_and_tells_how_to_resume(tmp_path: Path) -> None:
    write_split(tmp_path, coloured_fields(4), "train")
    recipe, out = recipe_file(tmp_path, steps=400, save_every=400), tmp_path / "out"
    with start_program("train", recipe, "--out", out) as program:
        wait_until(lambda: count_lines(out / "log.jsonl") >= 2, program, within_s=90)
        program.send_signal(signal.SIGINT)
        _, stderr = program.communicate(timeout=30)
    step = torch.load(out / "last.pt", weights_only=True)["step"]
    assert 2 <= step < 400
    assert (program.returncode, stderr.splitlines()[-1]) == (0, f"stopped after step {step} of 400; --resume continues")
    assert not (out / "road.onnx").exists()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] data. DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_a_step_that_does_not_fit_into_memory(
    error: Exception, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(loop, "_optimise", step)
    write_split(tmp_path, coloured_fields(4), "train")
    code, line = run_refused(capfd, "train", recipe_file(tmp_path), "--out", tmp_path / "out")
    assert (code, line) == (
        2,
        "batch: 2 crops of 32x48 do not fit into the memory of this machine; use a smaller batch or crop",
    )


def test_a_split_that_does_not_fit_into_memory(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_split(tmp_path, coloured_fields(4), "train")
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=90_000))
    code, line = run_refused(capfd, "train", recipe_file(tmp_path), "--out", tmp_path / "out")
    assert code == 3
    assert line.startswith(f"{tmp_path / 'train'}: 4 images such as 000.png take 0.0 GiB of memory; 0.0 GiB are")


def test_an_encoder_starts_from_the_weights_of_a_classifier(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "resnet.pth"
    torch.save(get_model("resnet34", weights=None).state_dict(), file)
    recipe = read_recipe(recipe_file(folder, network="unet_resnet34", backbone=str(file), held_back=0.2))
    job = prepare_job(recipe, where="r")
    assert job.spec == InputSpec((0.4, 0.4, 0.4), (0.3, 0.3, 0.3))
    stem: Any = job.net.get_submodule("encoder.stem.0")
    assert torch.equal(stem.weight, torch.load(file, weights_only=True)["conv1.weight"])
    with pytest.raises(ConfigError, match=r"r: mean: and std: are required, because .*resnet\.pth does not state them"):
        prepare_job(recipe.model_copy(update={"mean": None, "std": None}), where="r")


def test_the_card_names_the_data(folder: Path) -> None:
    recipe = read_recipe(folder / "fields.yaml").model_copy(update={"data": Path("elsewhere")})
    job = prepare_job(recipe, data=folder, where="r")
    run = Run(job.net, {}, torch.optim.SGD(job.net.parameters()), step=1)
    path = folder / "out" / "road.onnx"
    text = format_model_card(job, run, path, figures={}, checkpoint="last.pt", calibration_images=1)
    assert f"data: {folder}\n" in text


def test_export_of_a_checkpoint(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "again.onnx"
    assert run_cli("export", "road", "--weights", folder / "out" / "best.pt", "--out", out) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"again.onnx", "again.json"}
    first, again = (evaluate_images(path, folder, precision="f32") for path in (folder / "out" / "road.onnx", out))
    assert again["class_iou"] == first["class_iou"]


def test_export_of_the_mean_of_two_runs(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    best, other, out = folder / "out" / "best.pt", tmp_path / "other.pt", tmp_path / "mean.onnx"
    state = torch.load(best, weights_only=True)
    state["average"] = {
        name: value * 3 if value.is_floating_point() else value for name, value in state["average"].items()
    }
    torch.save(state, other)
    assert run_cli("export", "road", "--weights", best, "--weights", other, "--out", out) == 0
    mean, one = (initializers(path) for path in (out, folder / "out" / "road.onnx"))
    np.testing.assert_allclose(mean["score.bias"], 2 * one["score.bias"], rtol=1e-5)
    state["about"]["mean"] = [0.1, 0.1, 0.1]
    torch.save(state, other)
    both = ("export", "road", "--weights", best, "--weights", other, "--out", out, "--overwrite")
    code, line = run_refused(capfd, *both)
    assert code == 2
    assert "other.pt: its input or classes differ from those of" in line
    torch.save({**state, "average": {**state["average"], "more": torch.ones(1)}}, other)
    code, line = run_refused(capfd, *both)
    assert code == 4
    assert "other.pt: its layers differ from those of" in line


def test_exported_weights_can_be_trained_and_exported(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    best, out = folder / "out" / "best.pt", tmp_path / "mine.safetensors"
    (tmp_path / "mine.yaml").write_text("something: else\n", encoding="utf-8")  # not the side-car of an ONNX
    assert run_cli("export", "road", "--weights", best, "--out", out) == 0
    assert out.stat().st_size < 0.55 * 4 * sum(p.numel() for p in build_network("road", 3).parameters())
    weights, original = open_weights(out, network="road"), open_weights(best, network="road")
    assert (weights.spec, weights.classes, weights.size) == (original.spec, original.classes, original.size)
    again = tmp_path / "again.onnx"
    assert run_cli("export", "road", "--weights", out, "--out", again) == 0
    first, rounded = (evaluate_images(path, folder, precision="f32") for path in (folder / "out" / "road.onnx", again))
    assert rounded["miou"] == pytest.approx(first["miou"], abs=0.01)
    more = ("--out", tmp_path / "x.safetensors", "--data", folder, "--held", "val")
    code, line = run_refused(capfd, "export", "road", "--weights", best, *more)
    assert (code, line) == (
        2,
        "--held: requires --data and an int8 form to compare, which only an export to .onnx has",
    )
    recipe = recipe_file(folder, steps=2, warm_up=1, weights=str(out))
    assert run_cli("train", recipe, "--out", tmp_path / "further") == 0


def test_a_bias_is_exported_with_weights_and_networks(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    best, weights, out = folder / "out" / "best.pt", tmp_path / "mine.safetensors", tmp_path / "mine.onnx"
    prefer = ("--prefer", "red=1.5", "--prefer", "blue=-2")
    assert run_cli("export", "road", "--weights", best, "--out", weights, *prefer) == 0
    assert open_weights(weights, network="road").prefer == {"red": 1.5, "blue": -2}
    assert run_cli("export", "road", "--weights", weights, "--out", out, "--data", folder, "--held", "val") == 0
    assert json.loads(out.with_suffix(".json").read_text())["prefer"] == {"red": 1.5, "blue": -2}
    plain = evaluate_images(folder / "out" / "road.onnx", folder, precision="f32", prefer={"red": 1.5, "blue": -2})
    assert evaluate_images(out, folder, precision="f32")["miou"] == pytest.approx(plain["miou"], abs=0.01)
    assert evaluate_images(out, folder, precision="int8")["miou"] == pytest.approx(plain["miou"], abs=0.05)
    other = ("--prefer", "red=0")
    assert run_cli("export", "road", "--weights", weights, "--out", out, *other, "--overwrite") == 0
    unbiased = evaluate_images(folder / "out" / "road.onnx", folder, precision="f32")["miou"]
    assert evaluate_images(out, folder, precision="f32")["miou"] == pytest.approx(unbiased, abs=0.01) != plain["miou"]
    bad = ("--prefer", "tree=1", "--overwrite")
    code, line = run_refused(capfd, "export", "road", "--weights", best, "--out", out, *bad)
    assert (code, line) == (2, "--prefer: unknown class 'tree'; the classes are red, green, blue")


def test_the_fine_tuning_recipe_starts_from_the_shipped_weights(folder: Path) -> None:
    recipe = read_recipe(ROOT / "configs" / "train" / "fine_tune.yaml").model_copy(update={"check_input": False})
    net = prepare_job(recipe, data=folder, where="recipe").net
    shipped = open_weights("road", network="road")
    assert shipped.classes is not None
    assert shipped.classes.names == CAMVID.names
    assert torch.equal(net.stem[0].weight, shipped.state["stem.0.weight"].float())


def test_the_input_is_checked_at_the_size_of_the_network(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[tuple[int, int]] = []
    best = str(folder / "out" / "best.pt")
    for place in ("stream_seg.training.setup", "stream_seg.zoo.weights.input_spec"):
        for name in ("refuse_misfit", "refuse_worse"):
            monkeypatch.setattr(f"{place}.{name}", lambda *_, size, **__: sizes.append(size))
    distil = {"network": "road", "weights": best, "scales": [1.5]}
    keys = {"size": [96, 128], "mean": None, "std": None}
    prepare_job(read_recipe(recipe_file(folder, weights=best, distil=distil, **keys)), where="recipe")
    assert sizes == [(96, 128)] * 2 + [(48, 72)] * 2
    out = tmp_path / "road.safetensors"
    assert run_cli("export", "road", "--weights", best, "--out", out, "--data", folder, "--size", "128x160") == 0
    assert sizes[4:] == [(128, 160)] * 2


def test_the_shipped_weights_export_to_the_shipped_network(tmp_path: Path) -> None:
    assert run_cli("export", "road", "--weights", "road", "--out", tmp_path / "road.onnx") == 0
    exported, shipped = (initializers(path) for path in (tmp_path / "road.onnx", SHIPPED / "road.onnx"))
    assert exported.keys() == shipped.keys()
    for name, value in shipped.items():
        np.testing.assert_allclose(exported[name], value, rtol=1e-5, atol=1e-6)


def test_the_shipped_weights_do_not_fit_another_network(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, line = run_refused(capfd, "export", "segnet", "--weights", "road", "--out", tmp_path / "x.onnx")
    assert (code, line) == (2, "weights: road is for the network road, not segnet")


def test_a_size_that_is_too_small_keeps_existing_files(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.save(build_network("unet", 3).state_dict(), tmp_path / "unet.pt")
    for name in ("unet.onnx", "unet.json", "unet_int8.onnx"):
        (tmp_path / name).write_bytes(b"as it was")
    arguments = ["--weights", tmp_path / "unet.pt", "--out", tmp_path / "unet.onnx", "--classes", "3"]
    code, line = run_refused(capfd, "export", "unet", *arguments, "--input", "unit", "--size", "96x96", "--overwrite")
    assert code == 2
    assert line.startswith("--size: U-Net: 96x96 is too small")
    assert all((tmp_path / name).read_bytes() == b"as it was" for name in ("unet.onnx", "unet.json", "unet_int8.onnx"))


class Broken(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("broken")


def test_a_failed_export_keeps_the_previous_one(tmp_path: Path) -> None:
    spec, classes = InputSpec((0.4,) * 3, (0.3,) * 3), make_classes(NAMES, None, where="test")
    for name in ("x.onnx", "x.json", "x_int8.onnx"):
        (tmp_path / name).write_bytes(b"as it was")
    with pytest.raises(RuntimeError):
        export_network(Broken(), tmp_path / "x.onnx", NetworkInfo("x", (64, 96), spec, classes), overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == dict.fromkeys(
        ("x.onnx", "x.json", "x_int8.onnx"), b"as it was"
    )


def test_options_that_contradict_the_weights(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["export", "road", "--weights", folder / "out" / "best.pt", "--out", tmp_path / "x.onnx"]
    for more, message in (
        (("--classes", "blue,green,red"), "best.pt are red, green, blue; leave --classes out"),
        (("--classes", "3"), "best.pt are red, green, blue; leave --classes out"),
        (("--classes", "red,,blue"), "expected 1 to 255 distinct names"),
        (("--input", "unit"), "; leave --input out"),
        (("--data", folder, "--held", "train"), "--held: train is what int8 is calibrated on"),
        (("--held", "val"), "--held: requires --data"),
        (("--no-check",), "--no-check: requires --data, the images that weights are checked on"),
        (("--split", "val"), "--split: requires --data"),
        (("--out", tmp_path / "x.safetensors", "--split", "val"), "--split: requires --data"),
        (("--data", folder, "--split", "val", "--held", "val"), "--held: val is what int8 is calibrated on"),
        (("--prefer", "red=1", "--prefer", "red=0"), "--prefer red=0: red is named twice"),
    ):
        code, line = run_refused(capfd, *arguments, *more)
        assert code == 2
        assert message in line
    assert run_cli(*arguments, "--classes", "red, green,blue") == 0


def test_a_recipe_beside_the_network_is_refused(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = shutil.copy(recipe_file(folder), tmp_path / "road.yaml")
    code, line = run_refused(capfd, "train", recipe, "--out", tmp_path)
    assert code == 5
    assert line == f"{recipe} would be read as the side-car of road.onnx; choose another --out"
    assert [path.name for path in tmp_path.iterdir()] == ["road.yaml"]


def test_training_keeps_freed_memory(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []
    monkeypatch.setattr("stream_seg.cli.train.keep_freed_memory", lambda: calls.append(True))
    assert run_cli("train", recipe_file(folder, steps=3), "--out", tmp_path / "out") == 0
    assert calls


def test_an_edited_card_is_kept(folder: Path, tmp_path: Path) -> None:
    recipe, path = recipe_file(folder, steps=3), tmp_path / "out" / "road.md"
    assert run_cli("train", recipe, "--out", tmp_path / "out") == 0
    path.write_text("licence: MIT", encoding="utf-8")
    assert run_cli("train", recipe, "--out", tmp_path / "out", "--resume") == 0
    assert path.read_text(encoding="utf-8") == "licence: MIT"


def test_resuming_with_a_key_that_the_checkpoint_lacks(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run_cli("train", recipe_file(folder), "--out", out) == 0
    state = torch.load(out / "last.pt", weights_only=True)
    del state["recipe"]["paste"]
    torch.save(state, out / "last.pt")
    code, line = run_refused(capfd, "train", recipe_file(folder, paste={"classes": ["red"]}), "--out", out, "--resume")
    assert code == 2
    assert "the recipe has another paste now" in line
    assert run_cli("train", recipe_file(folder), "--out", out, "--resume") == 0


def initializers(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    return {one.name.removeprefix("net."): onnx.numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}


def test_bare_weights_need_a_side_car(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bare, out = tmp_path / "bare.pt", tmp_path / "bare.onnx"
    torch.save(torch.load(folder / "out" / "best.pt", weights_only=True)["average"], bare)
    arguments = ["export", "road", "--weights", bare, "--out", out, "--size", "64x96"]
    code, line = run_refused(capfd, *arguments, "--classes", "3")
    assert code == 2
    assert "states no input" in line
    assert "bare.pt.yaml" in line
    code, line = run_refused(capfd, *arguments, "--input", "imagenet")
    assert (code, "--classes: is required" in line) == (2, True)
    code, line = run_refused(capfd, *arguments, "--input", "imagenet", "--classes", "4")
    assert (code, "weights of 3 classes for a network of 4" in line) == (4, True)
    sidecar = {"colour": "bgr", "mean": [0.4] * 3, "std": [0.3] * 3, "classes": NAMES, "size": [64, 96]}
    bare.with_suffix(".pt.yaml").write_text(yaml.safe_dump(sidecar))
    assert run_cli("export", "road", "--weights", bare, "--out", out) == 0
    assert evaluate_images(out, folder, precision="f32")["miou"] > 0.85


def test_swapped_colours_are_detected(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bare, out = tmp_path / "bare.pt", tmp_path / "bare.onnx"
    torch.save(torch.load(folder / "out" / "best.pt", weights_only=True)["average"], bare)
    arguments = ["export", "road", "--weights", bare, "--out", out, "--size", "64x96", "--data", folder]
    for wrong in ({"scale": 1.0}, {"colour": "rgb"}):
        sidecar: dict[str, Any] = {"colour": "bgr", "mean": [0.4] * 3, "std": [0.3] * 3, "classes": NAMES, **wrong}
        bare.with_suffix(".pt.yaml").write_text(yaml.safe_dump(sidecar))
        code, line = run_refused(capfd, *arguments)
        assert code == 2
        assert "trained on another input than" in line
        assert "; colour bgr, scale 255, mean 0.4 0.4 0.4" in line or wrong == {"scale": 1.0}
    assert run_cli(*arguments[:-2]) == 0
    assert evaluate_images(out, folder, precision="f32")["miou"] < 0.4


@pytest.mark.parametrize(
    ("keys", "code", "message"),
    [
        ({"network": "lenet"}, 2, "network: unknown 'lenet'; known: road, fcn32s"),
        ({"steps": 0}, 2, "steps: expected whole number >= 1, got 0"),
        ({"backbone": "w.pth"}, 2, "backbone: road has no VGG16"),
        ({"network": "unet_resnet34", "backbone": "w.pth"}, 4, "w.pth: no such file"),
        ({"backbone": "w.pth", "weights": "road"}, 2, "start:, weights: and backbone: exclude each other"),
        ({"stepz": 1}, 2, "unknown key 'stepz', did you mean steps? (known: network, data"),
        (
            {"distil": {"netwrok": "road"}},
            2,
            "distil: unknown key 'netwrok', did you mean network? (known:",
        ),
        ({"val": "val", "held_back": 0.2}, 2, "val: and held_back: exclude each other"),
        ({"validate_every": 5}, 2, "validate_every: requires val:"),
        ({"mean": None}, 2, "mean: and std: require each other"),
        ({"mean": None, "std": None}, 2, "mean: and std: are required without weights"),
        ({"classes": [1, 2, 3]}, 2, "classes.0: expected text, got 1"),
        ({"classes": 3}, 2, "classes: expected text or list of 1 to 255, each a text, got 3"),
        ({"classes": ["red", "red"]}, 2, "classes: red named twice"),
        ({"classes": []}, 2, "classes: expected text or list of 1 to 255, each a text, got []"),
        ({"classes": "kitti"}, 2, "classes: unknown data set 'kitti' (known: camvid, cityscapes, voc"),
        ({"palette": [[0, 0, 0]]}, 2, "palette: 1 colours for 3 classes"),
        ({"paste": {"classes": ["tree"]}}, 2, "paste: unknown class 'tree'; the classes are red, green, blue"),
        ({"paste": {"classes": ["red"]}, "batch": 1}, 2, "paste: requires batch: 2 or more"),
        (
            {"classes": [*NAMES, "ghost"], "paste": {"classes": ["ghost"]}},
            2,
            "paste: no image of train has any ghost",
        ),
        ({"paste": {"share": 0.5}}, 2, "paste.classes: is required"),
        ({"repaint": {"classes": ["tree"]}}, 2, "repaint: unknown class 'tree'; the classes are red, green, blue"),
        ({"repaint": {"classes": ["red"], "share": 2}}, 2, "repaint.share: expected number > 0 and < 1, got 2"),
        ({"repaint": {"share": 0.5}}, 2, "repaint.classes: is required"),
        ({"classes": ["red"]}, 2, "classes: red alone; at least two classes are required"),
        ({"check_input": False}, 2, "check_input: requires weights: or distil:"),
        ({"val": "train"}, 2, "val: is the split that is trained on"),
        ({"schedule": "one_cycle"}, 2, "warm_up: is not allowed with schedule: one_cycle"),
        ({"warm_up": 4}, 2, "warm_up: 4 must be less than steps: 4"),
        ({"distil": {"network": "unet", "weights": "x.pt"}}, 2, "distil: network: U-Net: 32x48 is too small"),
        (
            {"crop": [112, 112], "distil": {"network": "unet", "weights": "x.pt", "scales": [1, 0.5]}},
            2,
            "distil: network: U-Net: 56x56 is too small",
        ),
        (
            {"distil": {"network": "road", "weights": "x.pt", "scales": [9]}},
            2,
            "distil.scales.0: expected number >= 0.25 and <= 4, got 9",
        ),
        (
            {"distil": {"network": "road", "weights": "x.pt", "scales": []}},
            2,
            "distil.scales: expected list of at least 1, each a number >= 0.25 and <= 4, got []",
        ),
        ({"sky": 3}, 2, "sky: 3 is no label; labels are 0 to 2"),
        ({"synth": 0.5}, 2, "none of them is among the classes of the recipe"),
        ({"scale": [2, 0.5]}, 2, "scale: [2, 0.5] must be ascending"),
        ({"scale": [0.0001, 0.0002]}, 2, "must be ascending, within 0.05 and 20"),
        ({"network": "unet", "crop": [112, 112]}, 2, "size: *64x96 is too small"),
        ({"network": "unet", "size": [112, 112]}, 2, "crop: *32x48 is too small"),
        ({"network": "deeplabv3_mobilenet", "batch": 1}, 2, "batch: 1 crops of 32x48 are too few"),
        ({"start": "nowhere.pt"}, 2, "start: no such file: nowhere.pt"),
        ({"mean": None, "std": None, "weights": "w.pt", "colour": "rgb"}, 2, "colour: requires mean"),
        ({"split": "trian"}, 3, "trian: no such folder"),
        ({"classes": ["red", "green"]}, 0, ""),
        ({"weights": "nowhere.pt"}, 4, "nowhere.pt: no such file"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_invalid_recipe(
    keys: dict[str, Any], code: int, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fields = coloured_fields(3)
    write_split(tmp_path, fields, "train")
    recipe = recipe_file(tmp_path, **keys)
    if code == 0:
        assert prepare_job(read_recipe(recipe), where="r").classes.names == ("red", "green")
        return
    exit_status, line = run_refused(capfd, "train", recipe, "--out", tmp_path / "out")
    assert exit_status == code
    assert all(part in line for part in message.split("*"))
    assert not (tmp_path / "out").exists()


def test_classes_in_another_order_are_refused(folder: Path, tmp_path: Path) -> None:
    write_split(tmp_path, coloured_fields(3), "train")
    best = str(folder / "out" / "best.pt")
    for keys in ({"start": best}, {"weights": best}, {"distil": {"network": "road", "weights": best}}):
        prepare_job(read_recipe(recipe_file(tmp_path, **keys)), where="r")
        recipe = read_recipe(recipe_file(tmp_path, classes=NAMES[::-1], **keys))
        with pytest.raises(ConfigError, match=r"its classes are red, green, blue; the recipe's are blue, green, red"):
            prepare_job(recipe, where="r")


def test_resuming_does_not_need_the_initial_weights(folder: Path, tmp_path: Path) -> None:
    write_split(tmp_path, coloured_fields(3), "train")
    start = tmp_path / "start.pt"
    shutil.copy(folder / "out" / "best.pt", start)
    recipe = read_recipe(recipe_file(tmp_path, start=str(start), mean=None, std=None, save_every=2))
    job, out = prepare_job(recipe, where="r"), tmp_path / "out"

    def interrupt(step: int, _figures: dict[str, Any]) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(job, out=out, on_step=interrupt)
    start.unlink()
    again = prepare_job(recipe, where="r", checkpoint=out / "last.pt")
    assert again.spec == job.spec
    assert train(again, out=out, resume=True).step == 4


def test_invalid_data(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def refuse(labels: Pairs) -> str:
        shutil.rmtree(tmp_path / "trainannot", ignore_errors=True)
        write_split(tmp_path, labels, "train")
        code, line = run_refused(capfd, "train", recipe_file(tmp_path), "--out", tmp_path / "out")
        assert code == 3
        return line

    good = coloured_fields(3)
    narrow = [good.labels[0], good.labels[1][:, 1:], good.labels[2]]
    assert "trainannot/001.png: size 95 x 64; expected that of its image, 96 x 64" in refuse(Pairs(good.images, narrow))
    high = [good.labels[0], good.labels[1], np.where(good.labels[2] == 2, 4, good.labels[2])]
    beyond = "trainannot/002.png: label 4 is out of range; expected 0 to 2, or 3 or 255 for void"
    assert beyond in refuse(Pairs(good.images, high))
    assert "trainannot: every pixel is void; labels of classes are 0 to 2" in refuse(
        Pairs(good.images, [np.full((64, 96), 255)] * 3)
    )
    assert f"train/002.png: {tmp_path / 'trainannot/002.png'} is missing" in refuse(Pairs(good.images, good.labels[:2]))
    shutil.rmtree(tmp_path / "train")
    assert "train: contains no PNG or JPEG" in refuse(Pairs([], []))


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "train").glob("*.yaml")), ids=lambda path: path.name)
def test_the_recipes_of_configs_are_valid(path: Path) -> None:
    assert read_recipe(path).network
    assert f"stream-seg train configs/train/{path.name}" in path.read_text()


def test_a_split_of_one_image(tmp_path: Path) -> None:
    fields = coloured_fields(1)
    write_split(tmp_path, Pairs(fields.images, fields.labels), "train")
    job = prepare_job(read_recipe(recipe_file(tmp_path)), where="r")
    assert (len(job.pairs), job.classes.names) == (1, tuple(NAMES))


def test_int8_is_exported_with_its_accuracy_report(folder: Path) -> None:
    report = open_network(folder / "out" / "road.onnx").int8_report
    assert report is not None
    assert (report["held_back"]["labelled"], report["calibration"]["images"], report["refused"]) == (4, 12, None)
    onnx = folder / "out" / "road.onnx"
    miou = {name: evaluate_images(onnx, folder, precision=name)["miou"] for name in ("f32", "int8")}
    assert report["held_back"]["miou_f32"] == pytest.approx(miou["f32"], abs=0.001)
    assert report["held_back"]["miou_lower"] == pytest.approx(miou["int8"], abs=0.001)


def test_int8_that_fails_the_gate_is_not_exported(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs, path = coloured_fields(12), tmp_path / "road.onnx"
    net = build_network("road", 3)
    net.load_state_dict(torch.load(folder / "out" / "best.pt", weights_only=True)["average"])
    spec, classes = InputSpec((0.4,) * 3, (0.3,) * 3, "bgr"), make_classes(NAMES, None, where="test")
    info = NetworkInfo("road", (64, 96), spec, classes)
    images = calibration_set(pairs, (64, 96), source="fields")
    monkeypatch.setattr("stream_seg.training.export.Limits", lambda: Limits(miou_loss=-100))
    assert (len(images.fit), len(images.held_back)) == (9, 3)
    written = export_network(net, path, info, images=images)
    assert (
        [file.name for file in written]
        == ["road.onnx", "road.json"]
        == sorted((file.name for file in tmp_path.iterdir()), reverse=True)
    )
    assert "road: no int8 form is written: calibration: loses" in caplog.text
    assert "loses" in json.loads(path.with_suffix(".json").read_text())["int8"]["report"]["refused"]
    assert open_network(path).int8 is None
