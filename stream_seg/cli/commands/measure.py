"""`stream-seg eval` and `stream-seg bench`: accuracy and speed of networks."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated, Any

import typer

from stream_seg.cli.names import BACKEND_HELP, PRECISION_HELP
from stream_seg.cli.options import JsonFile, Overwrite, Prefer, Size
from stream_seg.errors import ConfigError


def evaluate(
    network: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="A name, or the path of an .onnx or side-car.")
    ] = "road",
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder with SPLIT/ (images) and SPLITannot/ (label maps of the same names)."),
    ] = None,
    split: Annotated[str | None, typer.Option(metavar="SPLIT", help="Split of the data. Default: val.")] = None,
    backend: Annotated[str, typer.Option(metavar="NAME", help=BACKEND_HELP)] = "auto",
    precision: Annotated[str, typer.Option(metavar="NAME", help=PRECISION_HELP)] = "auto",
    size: Size = None,
    prefer: Prefer = None,
    json_file: JsonFile = None,
    overwrite: Overwrite = False,
    temporal: Annotated[
        bool,
        typer.Option(
            "--temporal",
            help="Measure stability over time and cost of every way to label a video: on synthetic drives, and with"
            " --data on a split of consecutive images.",
        ),
    ] = False,
    frames: Annotated[
        int | None,
        typer.Option(min=2, metavar="N", help="With --temporal: frames of each synthetic drive. Default: 60."),
    ] = None,
) -> None:
    """Measure a network on labelled images: mIoU, IoU per class, pixel accuracy. With --temporal, on videos."""
    from stream_seg.cli.console import print_results
    from stream_seg.cli.report import check_json_file, write_json
    from stream_seg.evaluation import images, videos
    from stream_seg.network.sidecar import parse_prefer, parse_size

    if frames is not None and not temporal:
        raise ConfigError("--frames: needs --temporal")
    if split is not None and data is None and temporal:
        raise ConfigError("--split: needs --data")
    split = split or "val"
    if data is None and not temporal and not Path(split).is_dir():
        raise ConfigError(f"--data: is required, a folder with {split}/ and {split}annot/")
    check_json_file(json_file, overwrite=overwrite, inputs=[network])
    engine: dict[str, Any] = {
        "backend": backend,
        "precision": precision,
        "size": None if size is None else parse_size(size),
        "prefer": parse_prefer(prefer or ()),
    }
    if temporal:
        figures = videos.evaluate_videos(network, data, split=split, frames=frames or 60, engine=engine)
        table = videos.tabulate_videos(figures)
    else:
        figures = images.evaluate_images(network, data or Path(), split=split, **engine)
        table = images.tabulate_images(figures)
    print_results(table, json_file=json_file)
    write_json(figures, json_file, overwrite=overwrite)


def bench(
    networks: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NETWORK",
            help="A name, the path of an .onnx or side-car, or a name of the zoo, which gets random weights."
            " Default: road.",
        ),
    ] = None,
    backends: Annotated[
        list[str] | None,
        typer.Option(
            "--backend", "-b", metavar="NAME", help="Backend to time, repeatable. Default: all that work here."
        ),
    ] = None,
    precisions: Annotated[
        list[str] | None,
        typer.Option(
            "--precision", "-p", metavar="NAME", help="Precision to time, repeatable. Default: all that are available."
        ),
    ] = None,
    sizes: Annotated[
        list[str] | None,
        typer.Option("--size", metavar="HxW", help="Input size of the network, repeatable. Default: its own."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--input", metavar="INPUT", help="Source of the frames. Default: a synthetic drive at 720p."),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.01, max=3600, metavar="N", help="Time to measure each figure.")] = 1.0,
    threads: Annotated[int, typer.Option(min=1, max=256, metavar="N", help="CPU threads of the network.")] = 1,
    json_file: JsonFile = None,
    overwrite: Overwrite = False,
) -> None:
    """Measure the time per frame, in the network alone and through the whole graph: p50, p95, p99, CPU."""
    from stream_seg.cli.bench import DRIVE, BenchPlan, make_footnotes, make_tables, run_benchmark
    from stream_seg.cli.console import error_console, print_results
    from stream_seg.cli.report import check_json_file, write_json
    from stream_seg.network.sidecar import parse_size

    signal.signal(signal.SIGINT, signal.default_int_handler)  # so that its temporary files go
    check_json_file(json_file, overwrite=overwrite, inputs=[*(networks or []), source])
    plan = BenchPlan(
        networks or ["road"],
        sizes=[parse_size(size) for size in sizes or []],
        backends=backends or [],
        precisions=precisions or [],
        source=source or DRIVE,
        seconds=seconds,
        threads=threads,
    )
    with error_console().status("bench") as status:
        facts = run_benchmark(plan, on_status=status.update)
    print_results(*make_tables(facts), f"\n{make_footnotes(facts)}", json_file=json_file)
    write_json(facts, json_file, overwrite=overwrite)
