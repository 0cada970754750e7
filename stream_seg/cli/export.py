"""The command `stream-seg export`: make a network for the pipeline, or weights to train from, from weights."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from stream_seg.config.outputs import check_files
from stream_seg.datasets.labelled import Pairs, list_pairs, read_pair, read_pairs
from stream_seg.errors import ConfigError, OutputError
from stream_seg.files.writing import require_writable
from stream_seg.installation import install_hint

if TYPE_CHECKING:
    from stream_seg.types import Classes
    from stream_seg.zoo.weights.source import Weights

DEFAULT_SPLIT = "train"


@dataclass(frozen=True)
class ExportOptions:
    """The options of `stream-seg export` as typed.

    Several `weights` are averaged. `data` is a folder whose `split` int8 is calibrated and the input checked on, and
    `compare` the split of it that int8 is compared with float32 on, by default images of `split` that were not
    calibrated on. `prefer` replaces that of the weights. `overwrite`: files that exist are replaced.
    """

    network: str
    weights: tuple[str, ...]
    out: Path
    classes: str | None = None
    input_name: str | None = None
    size: str | None = None
    data: Path | None = None
    split: str | None = None
    compare: str | None = None
    check: bool = True
    prefer: Mapping[str, float] = field(default_factory=dict)
    overwrite: bool = False

    @property
    def weights_only(self) -> bool:
        """True if weights are written instead of a network."""
        return self.out.suffix.lower() == ".safetensors"


def export_command(options: ExportOptions) -> None:
    """Write FILE.onnx, FILE.json and, with data, FILE_int8.onnx; for FILE.safetensors write the weights."""
    modules = ["safetensors"] if options.weights_only else ["onnxscript", *(["nncf"] if options.data else [])]
    require_modules("torch", "torchvision", *modules, purpose="export")
    from stream_seg.network.sidecar import parse_size
    from stream_seg.training.export import IMAGE_COUNT, NetworkInfo, calibration_set, export_network, subsample
    from stream_seg.training.setup import refuse_network, refuse_size, resolve_input_spec
    from stream_seg.zoo import build_network
    from stream_seg.zoo.weights.files import save_weights
    from stream_seg.zoo.weights.input_spec import INPUTS, refuse_misfit, refuse_worse
    from stream_seg.zoo.weights.load import load_weights
    from stream_seg.zoo.weights.source import average_weights, describe_weights, open_weights

    network, data = options.network, options.data
    refuse_network(network, where="export")
    refuse_contradictions(options, inputs=INPUTS)
    weights = average_weights([open_weights(source, network=network) for source in options.weights])
    own_spec = INPUTS.get(options.input_name or "")
    spec = resolve_input_spec(weights, own_spec, where="--input", hint="leave --input out")
    classes = _resolve_classes(options.classes, weights)
    size = weights.size if options.size is None else parse_size(options.size)
    if size is not None:
        refuse_size(network, size, classes=len(classes), where="--size")
    elif not options.weights_only:
        raise ConfigError("--size: is required, HEIGHTxWIDTH in pixels, for example 352x480")
    prefer = options.prefer or weights.prefer
    for name in prefer:
        classes.index(name, where="--prefer" if options.prefer else f"{weights.source}: prefer")
    net = build_network(network, len(classes)).eval()
    load_weights(net, weights.state, classes=len(classes), where=weights.source)
    split, pairs = options.split or DEFAULT_SPLIT, None
    if data is not None:  # as many as calibration takes, and as many between them to compare on
        paths = subsample(list_pairs(data, split), 2 * IMAGE_COUNT)
        samples = [read_pair(*pair, classes=len(classes)) for pair in paths]
        pairs = Pairs([image for image, _ in samples], [labels for _, labels in samples])
    if options.check and pairs is not None:
        where = f"{weights.source} (--no-check skips this check)"
        refuse_misfit(net, spec, pairs.images, where=where, size=size)
        refuse_worse(net, spec, pairs, classes, where=where, size=size)
    if options.weights_only or size is None:
        about = describe_weights(network, spec, classes, size, prefer)
        save_weights(options.out, net.state_dict(), about, overwrite=options.overwrite)
        print(options.out)
        return
    images = None
    if data is not None and pairs is not None:
        held_back = None if options.compare is None else read_pairs(data, options.compare, classes=len(classes))
        source = f"{split}, compared on {options.compare or split}"
        images = calibration_set(pairs, size, source=source, held_back=held_back)
    info = NetworkInfo(options.out.stem, size, spec, classes, prefer)
    written = export_network(net, options.out, info, images=images, overwrite=options.overwrite)
    print("\n".join(str(file) for file in written))


def network_files(onnx: Path) -> list[Path]:
    """Return the files of an exported network: FILE.onnx, its side-car FILE.json, and its int8 form FILE_int8.onnx."""
    return [onnx, onnx.with_suffix(".json"), onnx.with_stem(f"{onnx.stem}_int8")]


def refuse_sidecars(onnx: Path) -> None:
    """Raise OutputError if a YAML file beside `onnx` would be read as its side-car."""
    for other in (onnx.with_suffix(suffix) for suffix in (".yaml", ".yml")):
        if other.exists():
            raise OutputError(f"{other} would be read as the side-car of {onnx.name}; choose another --out")


def require_modules(*modules: str, purpose: str) -> None:
    """Raise ConfigError for modules that are not installed."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise ConfigError(f"{purpose} needs {', '.join(missing)}: {install_hint('[train]')}")


def refuse_contradictions(options: ExportOptions, *, inputs: Collection[str]) -> None:
    """Raise ConfigError or OutputError for options that contradict each other; `inputs` are the names for --input."""
    if options.input_name not in (None, *inputs):
        raise ConfigError(f"--input: unknown {options.input_name!r}; known: {', '.join(inputs)}, or use a side-car")
    if not options.weights_only and options.out.suffix.lower() != ".onnx":
        raise ConfigError(f"--out: {options.out} must end in .onnx for a network, or in .safetensors for weights")
    require_writable(options.out)
    files = [options.out] if options.weights_only else network_files(options.out)
    check_files(files, overwrite=options.overwrite, inputs=options.weights)
    if not options.weights_only:
        refuse_sidecars(options.out)
    if options.split is not None and options.data is None:
        raise ConfigError("--split: requires --data")
    if not options.check and options.data is None:
        raise ConfigError("--no-check: requires --data, the images that weights are checked on")
    if options.compare is not None and (options.data is None or options.weights_only):
        raise ConfigError("--held: requires --data and an int8 form to compare, which only an export to .onnx has")
    if options.compare == (options.split or DEFAULT_SPLIT):
        raise ConfigError(f"--held: {options.compare} is what int8 is calibrated on; name another split")


def _resolve_classes(text: str | None, weights: Weights) -> Classes:
    """Return the classes of --classes (a data set, names with commas, or a number), or those that the weights state."""
    from stream_seg.datasets.palettes import DATA_SETS
    from stream_seg.network.sidecar import make_classes

    if text is None:
        if weights.classes is None:
            reason = f"because {weights.source} states none"
            raise ConfigError(f"--classes: is required, {reason}: a number, names, or camvid")
        return weights.classes
    names = [f"class{i}" for i in range(int(text))] if re.fullmatch(r"\d{1,3}", text) else text.split(",")
    names = list(DATA_SETS[text].names) if text in DATA_SETS else [name.strip() for name in names]
    if not 1 <= len(set(names)) == len(names) <= 255 or "" in names:
        raise ConfigError(f"--classes: expected 1 to 255 distinct names, or their number, got {text!r}")
    if weights.classes is not None and list(weights.classes.names) != names:
        theirs = ", ".join(weights.classes.names)
        raise ConfigError(f"--classes: the classes of {weights.source} are {theirs}; leave --classes out")
    return weights.classes or make_classes(names, None, where="--classes")
