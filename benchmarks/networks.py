"""Every network of the zoo in one table: docs/networks.md, and what it takes here.

Multiplications are counted, and milliseconds measured, for CamVid's 11 classes at 352x480, in OpenVINO on one thread;
weights are random, which changes neither. int8 is NNCF's, calibrated on few drawn pictures: for the time, not for use.
Measuring all takes about half an hour on an idle core; a network that is named is measured alone, and the figures
of the others stay as results/networks.json has them. So it can be done in parts:

    python benchmarks/networks.py road unet --write docs/networks.md
    python benchmarks/networks.py --all --write docs/networks.md
    python benchmarks/networks.py --write docs/networks.md          (measures nothing)
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.console import Console
from surroundings import command, machine

from stream_seg.cli.bench import build_untrained
from stream_seg.cli.listing import list_zoo
from stream_seg.cli.report import write_json
from stream_seg.cli.timing import time_engine
from stream_seg.datasets.palettes import CAMVID
from stream_seg.engines.open import open_engine
from stream_seg.errors import ConfigError, NetworkError
from stream_seg.files import replace_file
from stream_seg.network.network import open_network
from stream_seg.schema.yaml import read_yaml
from stream_seg.stages.synthetic import Synthetic
from stream_seg.zoo import BUILDERS, build_network

RESULTS = Path(__file__).parent / "results"
SIZE = (352, 480)
PRECISIONS = ("f32", "bf16", "int8")
PICTURES = 4
MARKS = " †‡§"
"""Of figures by CPU, where they are of several: the one that most are of has none."""
SHEET = Path(__file__).parents[1] / "docs" / "images" / "side_by_side.png"
SIDE_BY_SIDE = (
    "## Side by side",
    "",
    "One picture of CamVid val as networks see it that were trained alike and briefly, from random weights, by",
    "`benchmarks/side_by_side.yaml`: how fine each one's scores are shows at once (SegNet's unpooling leaves",
    "grains, DeepLab v1's eighth of the size smooth edges, U-Net's concatenation keeps what is thin), how far each can",
    "be trained does not: the large ones, made to begin with ImageNet's weights, have hardly begun. The picture itself",
    "is not ours to show.",
    "",
    "```",
    "python benchmarks/side_by_side.py train NETWORK      # each",
    "python benchmarks/side_by_side.py draw --masks --columns 4 --input CAMVID/val/0016E5_08077.png",
    "```",
    "",
    "![Masks of several networks, side by side, with the colours of the classes](images/side_by_side.png)",
    "",
)


def main(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NETWORK]...", help="Measure these anew.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Measure all anew.")] = False,
    write: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the page, Markdown.")] = None,
    seconds: Annotated[float, typer.Option(min=0, help="How long each figure is measured.")] = 2.0,
    results: Annotated[Path, typer.Option(help="Where the figures are kept, and taken from.")] = (
        RESULTS / "networks.json"
    ),
) -> None:
    """Measure networks of the zoo, and write the page that compares them."""
    wanted = list(BUILDERS) if everything else names or []
    for name in wanted:
        if name not in BUILDERS:
            raise ConfigError(f"unknown network {name!r}; known: {', '.join(BUILDERS)}")
    known: dict[str, Any] = json.loads(results.read_bytes()) if results.is_file() else {}
    here = machine()  # before the first: after it, the load is our own
    for name in wanted:
        known[name] = {"ms": measured(name, seconds=seconds), "cpu": here["cpu"], "load": here["load"]}
        Console(highlight=False).print(name, known[name]["ms"])
        write_json(known, results)  # after each: the next may be killed
    if write is not None:
        replace_file(write, page(known, read_yaml(RESULTS / "camvid.yaml")).encode())


def measured(name: str, *, seconds: float) -> dict[str, float | None]:
    """By precision, the median of the network alone in ms; None where it is not to be had."""
    frames = islice(Synthetic(width=960, height=720, seed=7)(iter(())), PICTURES)
    pictures = [frame.image for frame in frames]
    with TemporaryDirectory() as folder:
        network = open_network(build_untrained(name, Path(folder), size=SIZE, calibration=pictures))
    ms: dict[str, float | None] = dict.fromkeys(PRECISIONS)
    for precision in PRECISIONS:
        try:
            engine = open_engine(network, backend="openvino", precision=precision)
        except NetworkError as error:
            Console(stderr=True, highlight=False).print(f"{name}: {error}")
            continue
        with engine:
            ms[precision] = round(time_engine(engine, pictures, seconds=seconds).p50_ms, 1)
    return ms


def multiplications(name: str) -> int:
    """Of one picture of `SIZE`, in convolutions and matrix products."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with torch.device("meta"), counter, torch.no_grad():
        build_network(name, len(CAMVID)).eval()(torch.zeros(1, 3, *SIZE))
    return counter.get_total_flops() // 2


def page(known: Mapping[str, Any], camvid: Mapping[str, Any]) -> str:
    """The whole of docs/networks.md."""
    listed = list_zoo()
    figures = [known[network["name"]] for network in listed if network["name"] in known]
    sources = list(dict.fromkeys(_source(network) for network in listed if network["published"]))
    often = [cpu for cpu, _ in Counter(figure["cpu"] for figure in figures).most_common()]
    marks = {cpu: f" {MARKS[place]}" if place else "" for place, cpu in enumerate(often)}
    rows = [_row(network, known.get(network["name"]), camvid, sources, marks) for network in listed]
    cpus = "; ".join(f"{marks[cpu].strip()} {cpu}".strip() for cpu in often) or "not measured yet"
    busy = max((figure["load"] for figure in figures), default=0) > 0.5
    trained = [f"* {name}: {said['how']}" for name, said in camvid.items()]
    return "\n".join([
        "# The networks",
        "",
        "Generated by `python benchmarks/networks.py --write docs/networks.md`. `stream-seg networks` lists the",
        "same, but for what is measured.",
        "",
        "| network | idea | year | parameters, M | GMAC | f32, ms | bf16, ms | int8, ms | published mIoU | mIoU here |",
        "|---|---|---:|---:|---:|---:|---:|---:|---|---:|",
        *rows,
        "",
        "Parameters are those of the source's own number of classes. GMAC and milliseconds are of one picture of",
        f"{SIZE[0]}x{SIZE[1]} and 11 classes; milliseconds are medians of the network alone, OpenVINO on one thread,",
        f"{cpus}{' (BUSY while it was measured: worth little)' if busy else ''}. Weights were random.",
        "Published figures are each on the paper's own data and not comparable with one another.",
        "",
        "Who counted the parameters (each number is checked against the code by tests/zoo/test_contract.py):",
        "",
        *_counted(listed),
        "",
        "Published, mean IoU in percent:",
        "",
        *(f"{number}. {source}" for number, source in enumerate(sources, 1)),
        "",
        "Here, mean IoU in percent on CamVid val (11 classes, the training split alone):",
        "",
        *trained,
        "",
        *(SIDE_BY_SIDE if SHEET.is_file() else ()),
    ])  # fmt: skip


def _counted(listed: list[dict[str, Any]]) -> list[str]:
    """A line for each source of numbers of parameters, with the networks that it is of."""
    by = dict.fromkeys(network["parameters_source"] for network in listed)
    return [
        f"* {', '.join(network['name'] for network in listed if network['parameters_source'] == source)}: {source}"
        for source in by
    ]


def _source(network: Mapping[str, Any]) -> str:
    return f"{network['source']} {network['year']}; {network['published']['where']}"


def _row(
    network: Mapping[str, Any],
    figures: Mapping[str, Any] | None,
    camvid: Mapping[str, Any],
    sources: list[str],
    marks: Mapping[str, str],
) -> str:
    name, published = network["name"], network["published"]
    told = f"{published['miou']} {published['data']} [{sources.index(_source(network)) + 1}]" if published else ""
    ms = [figures["ms"][precision] if figures else None for precision in PRECISIONS]
    cells = [
        f"[{name}](../{_file(name)})",
        network["idea"],
        str(network["year"]),
        f"{network['parameters'] / 1e6:.1f}",
        f"{multiplications(name) / 1e9:.1f}",
        *("" if one is None or figures is None else f"{one:.1f}{marks[figures['cpu']]}" for one in ms),
        told,
        f"{camvid[name]['miou']:.1f}" if name in camvid else "",
    ]
    return f"| {' | '.join(cells)} |"


def _file(name: str) -> str:
    return BUILDERS[name].builder.partition(":")[0].replace(".", "/") + ".py"


if __name__ == "__main__":
    command(main)
