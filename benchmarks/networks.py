"""Write docs/networks.md, a table of every network with its multiplications and its time on this machine.

Multiplications are counted and milliseconds measured for CamVid's 11 classes at 352x480, in OpenVINO on one thread.
Weights are random, which changes neither; int8 is calibrated on a few synthetic images, for its time only. Measuring
all networks takes about half an hour on an idle core. Only the networks that are named are measured; the figures of the
others are taken from results/networks.json:

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
from surroundings import describe_machine, run_command

from stream_seg.cli.bench import build_untrained
from stream_seg.cli.listing import list_zoo
from stream_seg.cli.report import write_json
from stream_seg.cli.timing import time_engine
from stream_seg.datasets.palettes import CAMVID
from stream_seg.engines.open import open_engine
from stream_seg.errors import ConfigError, NetworkError
from stream_seg.files.writing import replace_file
from stream_seg.network.network import open_network
from stream_seg.schema.yaml import read_yaml
from stream_seg.stages.synthetic import Synthetic
from stream_seg.zoo import BUILDERS, build_network

RESULTS = Path(__file__).parent / "results"
SIZE = (352, 480)
PRECISIONS = ("f32", "bf16", "int8")
IMAGES = 4
MARKS = " †‡§"
"""Marks of figures by CPU, if there are several; the most frequent CPU has none."""
SHEET = Path(__file__).parents[1] / "docs" / "images" / "side_by_side.png"
SIDE_BY_SIDE = (
    "## Side by side",
    "",
    "An image of CamVid val, labelled by networks that were trained briefly from random weights by the same recipe,",
    "`benchmarks/side_by_side.yaml`. It shows the resolution of each network's scores: SegNet's unpooling leaves",
    "grains, DeepLab v1 at an eighth of the size has smooth edges, U-Net's concatenation keeps thin objects. It does",
    "not show their final accuracy: the large ones, designed to start from ImageNet's weights, have hardly learnt",
    "anything yet. The image itself may not be published.",
    "",
    "```",
    "python benchmarks/side_by_side.py train NETWORK      # each",
    "python benchmarks/side_by_side.py draw --masks --columns 4 --input CAMVID/val/0016E5_08077.png",
    "```",
    "",
    "![Label maps of several networks, in the colours of CamVid](images/side_by_side.png)",
    "",
)


def main(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NETWORK]...", help="Networks to measure.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Measure all networks.")] = False,
    write: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the page (Markdown).")] = None,
    seconds: Annotated[float, typer.Option(min=0, help="Time to measure each figure.")] = 2.0,
    results: Annotated[Path, typer.Option(help="File of the figures, read and updated.")] = (RESULTS / "networks.json"),
) -> None:
    """Measure networks and write the page that compares them."""
    selected = list(BUILDERS) if everything else names or []
    for name in selected:
        if name not in BUILDERS:
            raise ConfigError(f"unknown network {name!r}; known: {', '.join(BUILDERS)}")
    known: dict[str, Any] = json.loads(results.read_bytes()) if results.is_file() else {}
    here = describe_machine()  # before the first, which causes load itself
    for name in selected:
        known[name] = {"ms": measure(name, seconds=seconds), "cpu": here["cpu"], "load": here["load"]}
        Console(highlight=False).print(name, known[name]["ms"])
        write_json(known, results, overwrite=True)  # after each, so that a kill loses one only
    if write is not None:
        replace_file(write, format_page(known, read_yaml(RESULTS / "camvid.yaml")).encode())


def measure(name: str, *, seconds: float) -> dict[str, float | None]:
    """Return the median time of the network alone in ms by precision, None if a precision is not available."""
    frames = islice(Synthetic(width=960, height=720, seed=7)(iter(())), IMAGES)
    images = [frame.image for frame in frames]
    with TemporaryDirectory() as folder:
        network = open_network(build_untrained(name, Path(folder), size=SIZE, calibration=images))
    ms: dict[str, float | None] = dict.fromkeys(PRECISIONS)
    for precision in PRECISIONS:
        try:
            engine = open_engine(network, backend="openvino", precision=precision)
        except NetworkError as error:
            Console(stderr=True, highlight=False).print(f"{name}: {error}")
            continue
        with engine:
            ms[precision] = round(time_engine(engine, images, seconds=seconds).p50_ms, 1)
    return ms


def count_multiplications(name: str) -> int:
    """Count the multiplications of one image of `SIZE` in convolutions and matrix products."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with torch.device("meta"), counter, torch.no_grad():
        build_network(name, len(CAMVID)).eval()(torch.zeros(1, 3, *SIZE))
    return counter.get_total_flops() // 2


def format_page(known: Mapping[str, Any], camvid: Mapping[str, Any]) -> str:
    """Return the text of docs/networks.md."""
    networks = list_zoo()
    figures = [known[network["name"]] for network in networks if network["name"] in known]
    sources = list(dict.fromkeys(_source(network) for network in networks if network["published"]))
    cpus = [cpu for cpu, _ in Counter(figure["cpu"] for figure in figures).most_common()]
    marks = {cpu: f" {MARKS[place]}" if place else "" for place, cpu in enumerate(cpus)}
    rows = [_row(network, known.get(network["name"]), camvid, sources, marks) for network in networks]
    machines = "; ".join(f"{marks[cpu].strip()} {cpu}".strip() for cpu in cpus) or "not measured yet"
    busy = max((figure["load"] for figure in figures), default=0) > 0.5
    trained = [f"* {name}: {entry['how']}" for name, entry in camvid.items()]
    return "\n".join([
        "# The networks",
        "",
        "Generated by `python benchmarks/networks.py --write docs/networks.md`. `stream-seg networks` prints the same",
        "list without the measured columns.",
        "",
        "| network | idea | year | parameters, M | GMAC | f32, ms | bf16, ms | int8, ms | published mIoU | mIoU here |",
        "|---|---|---:|---:|---:|---:|---:|---:|---|---:|",
        *rows,
        "",
        "Parameters are counted at the source's own number of classes. GMAC and milliseconds are for one image of",
        f"{SIZE[0]}x{SIZE[1]} and 11 classes; milliseconds are medians of the network alone, OpenVINO on one thread,",
        f"{machines}{' (BUSY during the measurement)' if busy else ''}. Weights were random.",
        "Published figures are on the data of each paper and not comparable with one another.",
        "",
        "The CRF of `deeplab_v1_crf` and `deeplab_v2_crf` does not improve every network: on the scores of the road",
        "network it lowers CamVid val from 74.8 to 71.1 mIoU (measured separately). Compare with and without it.",
        "",
        "Sources of the parameter counts, which tests/zoo/test_contract.py compares with the code:",
        "",
        *_parameter_sources(networks),
        "",
        "Sources of the published mean IoU, in percent:",
        "",
        *(f"{number}. {source}" for number, source in enumerate(sources, 1)),
        "",
        "Mean IoU here, in percent on CamVid val (11 classes, trained on the training split only). The test split is",
        "harder: the road network has 69.1 there.",
        "",
        *trained,
        "",
        *(SIDE_BY_SIDE if SHEET.is_file() else ()),
    ])  # fmt: skip


def _parameter_sources(networks: list[dict[str, Any]]) -> list[str]:
    """Return a line for each source of parameter counts with its networks."""
    sources = dict.fromkeys(network["parameters_source"] for network in networks)
    return [
        f"* {', '.join(network['name'] for network in networks if network['parameters_source'] == source)}: {source}"
        for source in sources
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
    accuracy = f"{published['miou']} {published['data']} [{sources.index(_source(network)) + 1}]" if published else ""
    ms = [figures["ms"][precision] if figures else None for precision in PRECISIONS]
    cells = [
        f"[{name}](../{_file(name)})",
        network["idea"],
        str(network["year"]),
        f"{network['parameters'] / 1e6:.1f}",
        f"{count_multiplications(name) / 1e9:.1f}",
        *("" if one is None or figures is None else f"{one:.1f}{marks[figures['cpu']]}" for one in ms),
        accuracy,
        f"{camvid[name]['miou']:.1f}" if name in camvid else "",
    ]
    return f"| {' | '.join(cells)} |"


def _file(name: str) -> str:
    return BUILDERS[name].builder.partition(":")[0].replace(".", "/") + ".py"


if __name__ == "__main__":
    run_command(main)
