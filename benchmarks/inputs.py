"""What pictures prepared in a wrong way cost the shipped network, and what gives it away: a table of docs/training.md.

    python benchmarks/inputs.py --data data/camvid

Accuracy is of every fifth picture of a labelled split, in float32; what gives it away is looked for in the training
split, as `stream-seg train` and `export --data` do.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from surroundings import command, figures

from stream_seg.datasets.labelled import Pairs, read_pairs
from stream_seg.errors import ConfigError, NetworkError
from stream_seg.network.shipped import NETWORKS
from stream_seg.zoo import built
from stream_seg.zoo.weights.check import INPUTS, agreement, refuse_misfit, refuse_worse, strangeness, turned
from stream_seg.zoo.weights.fit import fit
from stream_seg.zoo.weights.source import open_weights

EVERY, LOOKED_AT = 5, 16


def main(
    data: Annotated[Path, typer.Option(help="A folder with train/, trainannot/ and the split that is scored.")],
    split: Annotated[str, typer.Option(help="What is scored.")] = "val",
    network: Annotated[str, typer.Option(help="A network that is shipped.")] = "road",
) -> None:
    """Mean IoU, deviations and refusals, by how pictures are prepared."""
    if network not in NETWORKS:
        raise ConfigError(f"unknown network {network!r}; shipped are {', '.join(NETWORKS)}")
    weights = open_weights(network, network=network)
    if weights.spec is None or weights.classes is None:
        raise NetworkError(f"{network}: its weights do not say what they expect")
    net = built(network, len(weights.classes)).eval()
    fit(net, weights.state, classes=len(weights.classes), where=network)
    train, val = (read_pairs(data, one, classes=len(weights.classes)) for one in ("train", split))
    scored = Pairs(val.images[::EVERY], val.labels[::EVERY])
    looked_at = train.images[:: max(1, len(train) // LOOKED_AT)]
    specs = {"as it expects": weights.spec, "red for blue": turned(weights.spec), **INPUTS}
    table = figures("pictures as", "", "mean IoU", "deviations", "refused by")
    for name, spec in specs.items():
        checks = {
            "deviations": partial(refuse_misfit, net, spec, train.images, where=name),
            "labels": partial(refuse_worse, net, spec, train, weights.classes, where=name),
        }
        refused = [by for by, check in checks.items() if refuses(check)]
        miou = 100 * agreement(net, spec, scored, weights.classes)
        table.add_row(name, f"{miou:.1f}", f"{strangeness(net, spec, looked_at):.2f}", ", ".join(refused))
    Console(highlight=False).print(table)


def refuses(check: Callable[[], None]) -> bool:
    """Whether it raises."""
    try:
        check()
    except ConfigError:
        return True
    return False


if __name__ == "__main__":
    command(main)
