"""`stream-seg engines`: build engines, and see, check and remove those that were built."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream_seg.errors import ConfigError, NetworkError

if TYPE_CHECKING:
    from stream_seg.engines.cache_entry import Entry
    from stream_seg.engines.compare import Say


from collections.abc import Sequence

from rich.table import Table

from stream_seg.backends.device import place
from stream_seg.engines.cache_entry import Entry

app = typer.Typer(
    name="engines",
    help="Build engines (compiled or quantised networks), list, check and remove them. docs/engines.md says how.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
MOST_DAYS = 36500
"""Of `prune --older-than`: a hundred years."""
JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the same as JSON.")]


@app.command()
def build(
    network: Annotated[str | None, typer.Argument(help="A name, or the path of an .onnx or side-car.")] = None,
    backend: Annotated[str | None, typer.Option(help="auto, tensorrt, openvino, onnxruntime or torch.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, int8, fp8, fp16, bf16 or f32.")] = None,
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Of the input; what is shipped or exported is made to take it.")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Largest batch of a TensorRT engine.")] = None,
    compute_capability: Annotated[
        str | None, typer.Option(metavar="N.N", help="Build with TensorRT for a GPU that is not here, such as 8.9.")
    ] = None,
    calibrate: Annotated[
        str | None, typer.Option(metavar="DIR|VIDEO", help="Pictures of your own: int8 learns its ranges from them.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(metavar="DIR", help="Label maps for these pictures.")] = None,
    pictures: Annotated[int | None, typer.Option(help="How many of them are taken, evenly.")] = None,
    miou_loss: Annotated[
        float | None, typer.Option(help="mIoU points that may be lost where there are labels.")
    ] = None,
    agreement: Annotated[float | None, typer.Option(help="Percent of labels that must equal those of f32.")] = None,
    recipe: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A YAML of engines/; options overrule it.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Build an engine into the cache, unless it is there: the lowest precision that stays true to float32."""
    from stream_seg.cli.report import write_json
    from stream_seg.engines.build import EngineRecipe
    from stream_seg.engines.build import build as built
    from stream_seg.engines.cache import default_folder
    from stream_seg.files import refuse_unwritable
    from stream_seg.network.sidecar import parsed_size
    from stream_seg.schema.validation import require_mapping, validate
    from stream_seg.schema.yaml import read_yaml

    said = {
        "network": network,
        "backend": backend,
        "precision": precision,
        "size": None if size is None else parsed_size(size),
        "batch": batch,
        "compute_capability": compute_capability,
        "calibrate": calibrate,
        "labels": labels,
        "pictures": pictures,
        "miou_loss": miou_loss,
        "agreement": agreement,
    }
    base = {} if recipe is None else read_yaml(recipe)
    require_mapping(base, EngineRecipe.model_fields, where=str(recipe))
    whole = {**base, **{key: value for key, value in said.items() if value is not None}}
    if "network" not in whole:
        raise ConfigError("engines build: says no network; name one, or a --recipe that does")
    if json_file is not None:
        refuse_unwritable(json_file)
    wanted = validate(EngineRecipe, whole, where=str(recipe or "engines build"))
    with _progress() as say:
        done = built(wanted, folder=default_folder(), say=say)
    print(f"{done.entry.name}: {'built' if done.fresh else 'there already'}, {_sentence(done.entry)}")
    if json_file is not None:
        write_json({"name": done.entry.name, "fresh": done.fresh, **done.entry.model_dump(mode="json")}, json_file)


@app.command("list")
def listed(json_file: JsonFile = None) -> None:
    """List the engines of the cache."""
    from rich.console import Console

    from stream_seg.cli.report import write_json
    from stream_seg.engines.cache import default_folder, entries

    folder = default_folder()
    found = list(entries(folder))
    good = [entry for _, entry in found if not isinstance(entry, NetworkError)]
    if good:
        Console(markup=False).print(as_table(good, now=datetime.now(timezone.utc)))
    else:
        print(f"no engine in {folder}; stream-seg engines build makes one")
    doubtful = [str(entry) for _, entry in found if isinstance(entry, NetworkError)]
    for line in doubtful:
        print(line)
    if json_file is not None:
        shown = [{"name": entry.name, **entry.model_dump(mode="json")} for entry in good]
        write_json({"folder": str(folder), "engines": shown, "doubtful": doubtful}, json_file)


@app.command()
def show(
    engine: Annotated[str, typer.Argument(help="Its name, or enough of the name or id to tell it from others.")],
    json_file: JsonFile = None,
) -> None:
    """Show all that is known of an engine: what it was built of, and its accuracy report."""
    from rich.console import Console

    from stream_seg.cli.report import write_json
    from stream_seg.engines.cache import default_folder

    entry = _named(engine)
    Console(markup=False).print(as_details(entry, default_folder()))
    if json_file is not None:
        write_json({"name": entry.name, **entry.model_dump(mode="json")}, json_file)


@app.command()
def verify(json_file: JsonFile = None) -> None:
    """Check every engine of the cache: whole, ours, and built with what is installed. Exit code 4 where one is not."""
    from stream_seg.cli.report import write_json
    from stream_seg.engines.cache import default_folder, verified

    folder = default_folder()
    found = dict(verified(folder))
    for name, fault in found.items():
        print(fault or f"engine {name}: whole")
    if json_file is not None:
        write_json(found, json_file)
    faults = [name for name, fault in found.items() if fault]
    if faults:
        raise NetworkError(
            f"{len(faults)} of {len(found)} engines would not be loaded; stream-seg engines prune removes them"
        )
    count = "1 engine" if len(found) == 1 else f"{len(found)} engines, all"
    print(f"{count} whole" if found else f"no engine in {folder}")


@app.command()
def prune(
    older_than: Annotated[
        float | None, typer.Option(metavar="DAYS", help=f"Also those that were built longer ago; 0 to {MOST_DAYS}.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every engine.")] = False,
) -> None:
    """Remove engines that would not be loaded and what broken builds left, and more if asked."""
    from stream_seg.engines.cache import default_folder, entries, remove, swept, verified

    if older_than is not None and not 0 <= older_than <= MOST_DAYS:  # nor is it NaN
        raise ConfigError(f"--older-than {older_than:g}: expected days, 0 to {MOST_DAYS}")
    folder = default_folder()
    doomed = {name for name, fault in verified(folder) if fault or everything}
    if older_than is not None:
        limit = datetime.now(timezone.utc) - timedelta(days=older_than)
        old = (e for _, e in entries(folder) if not isinstance(e, NetworkError) and e.created < limit)
        doomed |= {entry.name for entry in old}
    for name in sorted(doomed):
        remove(folder, name)
        print(f"removed {name}")
    left = swept(folder)
    print(f"{len(doomed)} engines removed{f', {left} leftovers of broken builds' if left else ''}")


@contextmanager
def _progress() -> Iterator[Say]:
    """Lines on standard error, and on a terminal what is being done now, below them."""
    from rich.console import Console
    from rich.markup import escape

    from stream_seg.engines.compare import Say

    console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    status = console.status("")

    def line(text: str) -> None:
        status.stop()
        console.print(text)

    def step(text: str) -> None:
        status.update(escape(text))
        status.start()

    try:
        yield Say(line, step)
    finally:
        status.stop()


def _named(text: str) -> Entry:
    from stream_seg.engines.cache import default_folder, entries

    every = [entry for _, entry in entries(default_folder()) if not isinstance(entry, NetworkError)]
    found = [entry for entry in every if entry.name == text] or [entry for entry in every if text in entry.name]
    if len(found) != 1:
        names = ", ".join(entry.name for entry in (found or every)) or "none"
        raise ConfigError(f"engine {text!r}: {'several are meant' if found else 'is not in the cache'}; there: {names}")
    return found[0]


def _sentence(entry: Entry) -> str:
    from stream_seg.backends.device import place

    key = entry.key
    told = f"{key.precision} for {key.backend} on {place(key.device, key.compute_capability)}"
    return told if entry.gate is None else f"{told}, held-back pictures: {entry.judged}"


def as_table(entries: Sequence[Entry], *, now: datetime) -> Table:
    """One line each; `id` tells it from the others for `show`."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for heading in ("id", "network", "shape", "precision", "backend", "device"):
        table.add_column(heading, no_wrap=heading in ("id", "shape", "precision"))
    for heading in ("size", "age"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("gate")
    for entry in entries:
        key = entry.key
        batch, height, width, _ = key.shape
        shape = f"{height}x{width}" if batch == 1 else f"{batch}x{height}x{width}"
        device = f"{'GPU' if key.device == 'any' else key.device} {key.compute_capability or ''}".strip()
        size, age = f"{entry.bytes / 1e6:.1f} MB", old(entry.created, now=now)
        table.add_row(key.digest[:8], entry.network, shape, key.precision, key.backend, device, size, age, entry.judged)
    return table


def old(created: datetime, *, now: datetime) -> str:
    """An age in its largest unit."""
    seconds = max((now - created).total_seconds(), 0)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"


def as_details(entry: Entry, folder: Path) -> Table:
    """All that is known of one engine."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    key = entry.key
    rows = {
        "engine": entry.name,
        "file": str(folder / entry.file),
        "SHA-256": entry.sha256,
        "created": entry.created.isoformat(),
        "network": f"{entry.network}, ONNX {key.onnx}",
        "backend": f"{key.backend} {key.version}",
        "precision": key.precision,
        "shape": " x ".join(map(str, key.shape)),
        "device": place(key.device, key.compute_capability),
        "calibration": key.calibration or "none",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    for line in entry.refused:
        table.add_row("refused before", line)
    if entry.gate is None:
        return table
    for name, figures in (("calibration", entry.gate["calibration"]), ("held back", entry.gate["held_back"])):
        before, after = figures["miou_f32"], figures["miou_lower"]
        miou = "" if before is None or after is None else f", mIoU {100 * before:.2f} -> {100 * after:.2f}"
        worst = f"worst {100 * figures['worst']:.2f} % in {figures['worst_picture']}"
        told = f"{figures['pictures']} pictures, {100 * figures['agreement']:.2f} % as f32, {worst}{miou}"
        table.add_row(f"gate, {name}", told)
    table.add_row("compared", f"on {entry.gate['source']}, by {entry.gate['computed_by']}")
    return table
