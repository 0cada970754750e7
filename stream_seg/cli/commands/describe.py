"""`stream-seg doctor`, `networks` and `stages`: what there is to run."""

from __future__ import annotations

import shutil
import sys

import typer

from stream_seg.cli.options import JsonFile, Overwrite


def doctor(json_file: JsonFile = None, overwrite: Overwrite = False) -> None:
    """Show what this machine has, and whether the main job would run; if not, what to do, and exit code 1."""
    from stream_seg.cli.console import print_results
    from stream_seg.cli.doctor import examine, make_table
    from stream_seg.cli.report import check_json_file, write_json

    check_json_file(json_file, overwrite=overwrite)
    facts, todo = examine()
    print_results(make_table(facts, todo), json_file=json_file)
    write_json({**facts, "todo": todo}, json_file, overwrite=overwrite)
    if todo is not None:
        raise typer.Exit(1)


def networks(json_file: JsonFile = None, overwrite: Overwrite = False) -> None:
    """List the networks that have a name: the shipped, trained ones, and the trainable ones."""
    from stream_seg.cli.console import print_results
    from stream_seg.cli.listing import list_networks, list_zoo, networks_table, states_table, zoo_table
    from stream_seg.cli.report import check_json_file, write_json

    check_json_file(json_file, overwrite=overwrite)
    shipped, zoo = list_networks(), list_zoo()
    print_results(networks_table(shipped), zoo_table(zoo), states_table(), json_file=json_file)
    write_json({"networks": shipped, "zoo": zoo}, json_file, overwrite=overwrite)


def stages() -> None:
    """List the stages with the keys that a graph file may set, their ranges and defaults."""
    from stream_seg.cli.listing import describe_stages
    from stream_seg.stages.registry import STAGES, stage_class

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print(describe_stages({name: stage_class(name) for name in STAGES}, width=width))
