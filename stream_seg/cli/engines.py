"""`stream-seg engines`: build engines; list, check and remove built ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream_seg.cli.names import BACKEND_HELP, PRECISION_HELP
from stream_seg.cli.options import JsonFile, Overwrite
from stream_seg.errors import ConfigError, NetworkError

if TYPE_CHECKING:
    from stream_seg.engines.build_one import Reporter

app = typer.Typer(
    name="engines",
    help="Build engines (compiled or quantized networks), list, check and remove them; see {docs}engines.md.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
LONGEST_DAYS = 36500
"""Limit of `prune --older-than`: a hundred years."""


@app.command()
def build(
    context: typer.Context,
    network: Annotated[
        str | None, typer.Argument(metavar="NETWORK", help="A name, or the path of an .onnx or side-car.")
    ] = None,
    backend: Annotated[str | None, typer.Option(metavar="NAME", help=BACKEND_HELP)] = None,
    precision: Annotated[str | None, typer.Option(metavar="NAME", help=PRECISION_HELP)] = None,
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Input size; shipped and exported networks are resized to it.")
    ] = None,
    compute_capability: Annotated[
        str | None,
        typer.Option(metavar="N.N", help="Build with TensorRT for a GPU that is not in this machine, such as 8.9."),
    ] = None,
    calibrate: Annotated[
        str | None, typer.Option(metavar="DIR|VIDEO", help="Your own images, to calibrate int8 on.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(metavar="DIR", help="Label maps for these images.")] = None,
    images: Annotated[int | None, typer.Option(metavar="N", help="Number of images to take, evenly spaced.")] = None,
    miou_loss: Annotated[
        float | None, typer.Option(metavar="N", help="Accepted loss in mIoU points, with labels.")
    ] = None,
    agreement: Annotated[
        float | None, typer.Option(metavar="N", help="Required percentage of labels equal to f32, without labels.")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A YAML with these options, which override it.")
    ] = None,
    json_file: JsonFile = None,
    overwrite: Overwrite = False,
) -> None:
    """Build an engine into the cache unless it is there: in the lowest precision that stays accurate.

    Recipes to start from: {engines}
    """
    from stream_seg.cli.console import print_results
    from stream_seg.cli.engines_table import describe_engine
    from stream_seg.cli.report import check_json_file, write_json
    from stream_seg.engines.build import build_engine
    from stream_seg.engines.cache import cache_folder
    from stream_seg.engines.recipe import EngineRecipe
    from stream_seg.network.sidecar import parse_size
    from stream_seg.schema.validation import require_mapping, validate
    from stream_seg.schema.yaml import read_yaml

    # the options have the names of the recipe's keys
    options = {key: context.params[key] for key in EngineRecipe.model_fields if context.params.get(key) is not None}
    if size is not None:
        options["size"] = parse_size(size)
    base = {} if recipe is None else read_yaml(recipe)
    keys = {**require_mapping(base, EngineRecipe.model_fields, where=str(recipe)), **options}
    if "network" not in keys:
        raise ConfigError("engines build: no network; name one, or a --recipe that does")
    engine_recipe = validate(EngineRecipe, keys, where=str(recipe or "engines build"))
    check_json_file(json_file, overwrite=overwrite, inputs=[recipe, engine_recipe.network, engine_recipe.calibrate])
    with _show_progress() as report:
        result = build_engine(engine_recipe, folder=cache_folder(), report=report)
    entry = result.entry
    line = f"{entry.name}: {'built' if result.fresh else 'there already'}, {describe_engine(entry)}"
    print_results(line, json_file=json_file)
    facts = {"name": entry.name, "fresh": result.fresh, **entry.model_dump(mode="json")}
    write_json(facts, json_file, overwrite=overwrite)


@app.command("list")
def list_engines(json_file: JsonFile = None, overwrite: Overwrite = False) -> None:
    """List the engines of the cache."""
    from stream_seg.cli.console import print_results
    from stream_seg.cli.engines_table import make_table
    from stream_seg.cli.report import check_json_file, write_json
    from stream_seg.engines.cache import cache_folder, read_entries

    check_json_file(json_file, overwrite=overwrite)
    folder = cache_folder()
    entries, faults = read_entries(folder)
    doubtful = [str(fault) for fault in faults.values()]
    none = f"no engine in {folder}; build one with stream-seg engines build NETWORK"
    table = make_table(entries, now=datetime.now(timezone.utc)) if entries else none
    print_results(table, *doubtful, json_file=json_file)
    engines = [{"name": entry.name, **entry.model_dump(mode="json")} for entry in entries]
    write_json({"folder": str(folder), "engines": engines, "doubtful": doubtful}, json_file, overwrite=overwrite)


@app.command()
def show(
    engine: Annotated[
        str, typer.Argument(metavar="ENGINE", help="Name or id of an engine, or an unambiguous part of it.")
    ],
    json_file: JsonFile = None,
    overwrite: Overwrite = False,
) -> None:
    """Show everything about an engine: what it was built from, and its accuracy report."""
    from stream_seg.cli.console import print_results
    from stream_seg.cli.engines_table import make_details
    from stream_seg.cli.report import check_json_file, write_json
    from stream_seg.engines.cache import cache_folder, find_entry_by_name

    check_json_file(json_file, overwrite=overwrite)
    folder = cache_folder()
    entry = find_entry_by_name(folder, engine)
    print_results(make_details(entry, folder), json_file=json_file)
    write_json({"name": entry.name, **entry.model_dump(mode="json")}, json_file, overwrite=overwrite)


@app.command()
def verify(json_file: JsonFile = None, overwrite: Overwrite = False) -> None:
    """Check that every engine of the cache would be loaded: intact, yours, and of the installed version.

    Exit code 4 if one would not.
    """
    from stream_seg.cli.console import print_results
    from stream_seg.cli.report import check_json_file, write_json
    from stream_seg.engines.cache import cache_folder, verify_engines

    check_json_file(json_file, overwrite=overwrite)
    folder = cache_folder()
    faults = verify_engines(folder)
    lines = [str(fault or f"engine {name}: ok") for name, fault in faults.items()]
    print_results(*lines, json_file=json_file)
    write_json(faults, json_file, overwrite=overwrite)
    count = sum(fault is not None for fault in faults.values())
    if count:
        raise NetworkError(
            f"{count} of {len(faults)} engines would not be loaded; stream-seg engines prune removes them"
        )
    total = "1 engine" if len(faults) == 1 else f"all {len(faults)} engines"
    print_results(f"{total} ok" if faults else f"no engine in {folder}", json_file=json_file)


@app.command()
def prune(
    older_than: Annotated[
        float | None,
        typer.Option(metavar="DAYS", help=f"Also engines older than this; 0 to {LONGEST_DAYS}."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every engine.")] = False,
) -> None:
    """Remove engines that would not be loaded, and the leftovers of interrupted builds."""
    from stream_seg.engines.cache import cache_folder, read_entries, verify_engines
    from stream_seg.engines.cache_write import clean_up, remove_engine

    if older_than is not None and not 0 <= older_than <= LONGEST_DAYS:  # NaN fails this too
        raise ConfigError(f"--older-than {older_than:g}: expected days, 0 to {LONGEST_DAYS}")
    folder = cache_folder()
    names = {name for name, fault in verify_engines(folder).items() if fault or everything}
    if older_than is not None:
        limit = datetime.now(timezone.utc) - timedelta(days=older_than)
        names |= {entry.name for entry in read_entries(folder)[0] if entry.created < limit}
    for name in sorted(names):
        remove_engine(folder, name)
        print(f"removed {name}")
    leftovers = clean_up(folder)
    count = f", {leftovers} leftovers of interrupted builds" if leftovers else ""
    print(f"{len(names)} engines removed{count}")


@contextmanager
def _show_progress() -> Iterator[Reporter]:
    """Print lines on standard error, with the current step below them on a terminal."""
    from rich.markup import escape

    from stream_seg.cli.console import error_console, print_error_line
    from stream_seg.engines.build_one import Reporter

    status = error_console().status("")

    def print_line(text: str) -> None:
        status.stop()
        print_error_line(text)

    def show_step(text: str) -> None:
        status.update(escape(text))
        status.start()

    try:
        yield Reporter(print_line, show_step)
    finally:
        status.stop()
