"""Measure what wrong input preparation costs the shipped network, and which checks detect it (docs/training.md).

    python benchmarks/inputs.py --data data/camvid

Accuracy is measured in float32 on every fifth image of a labelled split. The checks look at the training split, as in
`stream-seg train` and `export --data`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from surroundings import figures_table, run_command

from stream_seg.datasets.labelled import Pairs, read_pairs
from stream_seg.errors import ConfigError, NetworkError
from stream_seg.network.shipped import NETWORKS
from stream_seg.schema.validation import describe_unknown
from stream_seg.zoo import build_network
from stream_seg.zoo.weights import input_spec
from stream_seg.zoo.weights.input_spec import INPUTS, refuse_misfit, refuse_worse
from stream_seg.zoo.weights.load import load_weights
from stream_seg.zoo.weights.source import open_weights

EVERY, SAMPLE_COUNT = 5, 16
"""Every fifth image is scored; the deviation of batch-norm statistics is measured on 16."""


def main(
    data: Annotated[Path, typer.Option(help="Folder with train/, trainannot/ and the split to score.")],
    split: Annotated[str, typer.Option(help="Split to score.")] = "val",
    network: Annotated[str, typer.Option(help="A shipped network.")] = "road",
) -> None:
    """Print mean IoU, deviations and failed checks for each way to prepare images."""
    if network not in NETWORKS:
        raise ConfigError(describe_unknown("network", network, NETWORKS))
    weights = open_weights(network, network=network)
    if weights.spec is None or weights.classes is None:
        raise NetworkError(f"{network}: its weights do not describe their input and classes")
    net = build_network(network, len(weights.classes)).eval()
    load_weights(net, weights.state, classes=len(weights.classes), where=network)
    train, val = (read_pairs(data, one, classes=len(weights.classes)) for one in ("train", split))
    scored = Pairs(val.images[::EVERY], val.labels[::EVERY])
    samples = train.images[:: max(1, len(train) // SAMPLE_COUNT)]
    specs = {"as expected": weights.spec, "red for blue": weights.spec.swap_colours(), **INPUTS}
    table = figures_table("images as", "", "mean IoU", "deviations", "refused by")
    for name, spec in specs.items():
        checks = {
            "deviations": partial(refuse_misfit, net, spec, train.images, where=name),
            "labels": partial(refuse_worse, net, spec, train, weights.classes, where=name),
        }
        refused = [by for by, check in checks.items() if is_refused(check)]
        miou = 100 * input_spec.score(input_spec.torch_predictor(net, spec), scored, weights.classes)["miou"]
        table.add_row(name, f"{miou:.1f}", f"{input_spec.norm_deviation(net, spec, samples):.2f}", ", ".join(refused))
    Console(highlight=False).print(table)


def is_refused(check: Callable[[], None]) -> bool:
    """Return True if a check raises."""
    try:
        check()
    except ConfigError:
        return True
    return False


if __name__ == "__main__":
    run_command(main)
