"""Data is never code: the package executes no data, and payloads on its inputs have no effect."""

from __future__ import annotations

import ast
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

import stream_seg
from stream_seg.backends.choose import find_target
from stream_seg.config.graph_file import read_document
from stream_seg.engines.cache import read_engine, read_entries
from stream_seg.engines.cache_entry import hash_bytes
from stream_seg.engines.open import open_engine
from stream_seg.errors import StreamSegError
from stream_seg.network.network import open_network
from stream_seg.schema.yaml import read_yaml
from tests.support import small_networks
from tests.support.cache_entries import store_entry

PACKAGE = Path(stream_seg.__file__).parent
MODULES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "jsonpickle"}
CALLS = {"eval", "exec", "__import__"}
METHODS = {
    "yaml.unsafe_load", "yaml.full_load", "yaml.unsafe_load_all", "yaml.full_load_all", "os.system", "os.popen",
    "torch.jit.load", "torch.hub.load", "pandas.read_pickle",
}  # fmt: skip
ENDINGS = {"recv_pyobj", "send_pyobj"}
ALLOWED = {
    "schema/yaml.py: yaml.load": "its loader is a SafeLoader that also refuses aliases and duplicate keys",
    "zoo/weights/files.py: import pickle": "for the error that torch.load raises when it refuses one",
}
"""Findings that are right, and the reason. An entry without a finding is a fault too."""


def scan(source: str) -> Iterator[str]:
    """Yield the imports and calls of a Python source that could execute data."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (f"import {a.name}" for a in node.names if a.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            yield f"import {node.module}"
        elif isinstance(node, ast.Call):
            yield from scan_call(ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords})


def scan_call(name: str, keys: dict[str | None, str]) -> Iterator[str]:
    last = name.rpartition(".")[2]
    if name in CALLS or name in METHODS or last in ENDINGS or name in ("yaml.load", "yaml.load_all"):
        yield name
    if name == "torch.load" and keys.get("weights_only") != "True":
        yield "torch.load without weights_only"
    if last == "load" and keys.get("allow_pickle", "False") != "False":
        yield f"{name} with allow_pickle"
    if keys.get("shell", "False") != "False":
        yield f"{name} with shell"


def test_nothing_in_the_package_executes_data() -> None:
    findings = {
        f"{path.relative_to(PACKAGE)}: {finding}"
        for path in PACKAGE.rglob("*.py")
        for finding in scan(path.read_text(encoding="utf-8"))
    }
    assert findings == set(ALLOWED)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from pickle import loads", "import marshal", "import dill as d", "eval('1')", "exec(text)",
        "yaml.load(text)", "yaml.unsafe_load(text)", "socket.recv_pyobj()", "torch.load(path)",
        "torch.load(path, weights_only=False)", "np.load(path, allow_pickle=True)", "subprocess.run(c, shell=True)",
        "os.system(c)", "def f():\n    class A:\n        import pickle",
    ],
)  # fmt: skip
def test_the_scan_finds(source: str) -> None:
    assert len(list(scan(source))) == 1


@pytest.mark.parametrize(
    "source",
    ["net.eval()", "torch.load(path, weights_only=True)", "np.load(path)", "json.load(f)", "run(c, shell=False)"],
)
def test_the_scan_accepts(source: str) -> None:
    assert list(scan(source)) == []


class Touch:
    """An object that creates a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.canary,)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


def make_payloads(canary: Path) -> dict[str, bytes]:
    call = f"!!python/object/apply:os.system ['touch {canary}']"
    return {"pickle": pickle.dumps(Touch(canary)), "yaml": call.encode(), "key": f"network: {call}".encode()}


@pytest.mark.parametrize("kind", ["pickle", "yaml", "key"])
def test_the_payloads_are_live(canary: Path, kind: str) -> None:
    """The control: unpickling and unsafe loading execute them."""
    load = pickle.loads if kind == "pickle" else yaml.unsafe_load
    load(make_payloads(canary)[kind])
    assert canary.exists()


@pytest.mark.parametrize("kind", ["pickle", "yaml", "key"])
@pytest.mark.parametrize("place", ["mine.onnx", "mine.yaml", "mine.json", "graph.yaml", "recipe.yaml", "weights.pth"])
def test_a_payload_does_nothing(tmp_path: Path, canary: Path, place: str, kind: str) -> None:
    path = tmp_path / place
    if path.stem == "mine":
        small_networks.write_network(
            tmp_path, small_networks.make_model(outputs={"out": 3}), {"classes": small_networks.CLASSES}
        )
    if place == "mine.json":
        (tmp_path / "mine.yaml").unlink()
    path.write_bytes(make_payloads(canary)[kind])
    with pytest.raises(StreamSegError) as error:
        open_file(path)
    assert "\n" not in str(error.value)
    assert not canary.exists()


def open_file(path: Path) -> None:
    """Open a file as the program does with one of that name."""
    if path.name == "weights.pth":
        pytest.importorskip("torch")
        from stream_seg.zoo.weights.files import read_weights

        read_weights(path)
    elif path.stem == "mine":
        open_network(path.with_suffix(".onnx"))
    elif path.stem == "graph":
        read_document(path)
    else:
        read_yaml(path)


@pytest.mark.parametrize("part", ["engine", "description"])
def test_a_payload_in_the_cache_does_nothing(
    tmp_path: Path, canary: Path, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "engines"
    monkeypatch.setenv("STREAM_SEG_CACHE", str(folder))
    mine = small_networks.write_network(
        tmp_path, small_networks.make_model(outputs={"out": 3}), {"classes": small_networks.CLASSES}
    )
    target, network = find_target("openvino"), open_network(mine)

    key = {
        "onnx": hash_bytes(network.f32),
        "version": target.version,
        "device": target.device.name,
        "precision": "int8",
    }
    entry = store_entry(folder, network="mine", **key)
    path = folder / (entry.file if part == "engine" else f"{entry.name}.json")
    path.write_bytes(make_payloads(canary)["pickle"])
    with open_engine(network, backend="openvino") as engine:
        assert engine.spec.info.precision != "int8"
    assert not canary.exists()
    for entry in read_entries(folder)[0]:
        with pytest.raises(StreamSegError, match="not loaded"):
            read_engine(folder, entry)
