"""The command line: `stream-seg run | eval | train | export | engines | bench | doctor | networks | stages`.

Exit codes: 0 success (also after Ctrl-C or SIGTERM), 1 unexpected error, 2 wrong argument or config, 3 failed input,
4 failed network or engine, 5 failed output, 6 stage that failed at a frame or that a stop had to abandon. Of the other
commands a signal ends the process as usual (130, 143 in a shell).
"""

from __future__ import annotations

import shutil
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from stream_seg import __version__
from stream_seg.cli import engines as engines_commands
from stream_seg.cli import switches
from stream_seg.cli.console import terminal_console
from stream_seg.cli.names import BACKEND_HELP, PRECISION_HELP
from stream_seg.cli.options import JsonFile, Overwrite
from stream_seg.errors import ConfigError
from stream_seg.telemetry.logs import LogFormat, configure

EXIT_CODES = (
    "Exit codes: 0 done (also after Ctrl-C), 1 unexpected, 2 argument or config, 3 input, 4 network, 5 output, 6 stage."
)

Prefer = Annotated[
    list[str] | None,
    typer.Option(metavar="CLASS=NUMBER", help="Add a number to the scores of a class, such as pole=0.5; repeatable."),
]
Size = Annotated[str | None, typer.Option(metavar="HxW", help="Size of the network's input. Default: its own.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log progress on standard error.")]
LOG_FORMATS = "auto|text|json"
LOG_FORMAT = "Format of log lines; auto: text on a terminal, else JSON."
HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    name="stream-seg",
    help="Real-time video segmentation: frames in, steady masks and overlays out.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="markdown",  # else the lines of a docstring break where they break in the source
    context_settings=HELP_OPTIONS,
)
app.add_typer(engines_commands.app)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    verbose: Verbose = False,
    log_format: Annotated[LogFormat, typer.Option(metavar=LOG_FORMATS, help=LOG_FORMAT)] = "auto",
) -> None:
    """Real-time video segmentation: frames in, steady masks and overlays out."""
    if version:
        print(__version__)
        raise typer.Exit
    configure(verbose=verbose, log_format=log_format, console=terminal_console())


# epilog and options also serve run_pipeline.py, which has no app around the command
@app.command(epilog=EXIT_CODES, context_settings=HELP_OPTIONS)
def run(
    context: typer.Context,
    source: Annotated[
        str | None,
        typer.Argument(metavar="INPUT", help="One of: {inputs}. Default: the demo, a synthetic drive into demo.mp4."),
    ] = None,
    outputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="OUTPUT",
            help="Any number of: {outputs}. Default: NAME_seg.mp4 beside a video, label maps beside images (NAME_seg/),"
            " else a window or a page.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", metavar="FILE", help="The graph file (YAML), instead of the default graph."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="STAGE.KEY=VALUE", help="Change a key of the graph, after all switches: smooth.weight=0.6."
        ),
    ] = None,
    network: switches.Network = None,
    device: switches.Device = None,
    size: switches.Size = None,
    every: switches.Every = None,
    threads: switches.Threads = None,
    no_smooth: switches.NoSmooth = False,
    classes: switches.Classes = None,
    opacity: switches.Opacity = None,
    palette: switches.Palette = None,
    start: switches.Start = None,
    duration: switches.Duration = None,
    loop: switches.Loop = False,
    fps: switches.Fps = None,
    report_file: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE", help="Write the figures of the run as JSON; -: on standard output."),
    ] = None,
    overwrite: Overwrite = False,
    metrics_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, metavar="PORT", help="Serve Prometheus metrics on 127.0.0.1; 0: a free port."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no table.")] = False,
    verbose: Verbose = False,
    log_format: Annotated[LogFormat | None, typer.Option(metavar=LOG_FORMATS, help=LOG_FORMAT)] = None,
) -> None:
    """Segment a video: INPUT through the graph into every OUTPUT.

    A live input (camera, rtsp, http) drops old frames to stay at the newest one; a recording loses nothing. Ctrl-C or
    SIGTERM ends a run within two seconds, with playable files.

    Graph files to start from: {configs}
    """
    from stream_seg.cli.arguments import complete_arguments
    from stream_seg.cli.run import run as run_graph
    from stream_seg.config.graph_file import apply_settings, read_document
    from stream_seg.config.overrides import default_document, with_input, with_outputs
    from stream_seg.config.switches import apply_switches
    from stream_seg.stages.registry import StageLoader

    before = {} if context.parent is None else context.parent.params  # those of `stream-seg -v run`
    log_format = log_format or before.get("log_format", "auto")
    configure(verbose=verbose or before.get("verbose", False), log_format=log_format, console=terminal_console())
    arguments = complete_arguments(
        source, outputs or [], graph_file=config is not None, overwrite=overwrite, endless=loop
    )
    settings = [*(settings or []), *arguments.settings, *(["overwrite=true"] if overwrite else [])]
    if metrics_port is not None:
        settings.append(f"metrics.port={metrics_port}")
    loader, where = StageLoader(config.parent if config else Path()), str(config or "graph")
    values = switches.read_switches(context.params)

    def read() -> dict[str, Any]:
        document = read_document(config) if config else default_document()
        if arguments.source is not None:
            document = with_input(document, arguments.source, loader)
        if arguments.outputs:
            document = with_outputs(document, arguments.outputs, loader)
        document = apply_switches(document, values, where=where, loader=loader)
        return apply_settings(document, settings)

    run_graph(
        read,
        where=where,
        loader=loader,
        note=arguments.note,
        report_file=report_file,
        quiet=quiet,
        reloadable=config is not None,
        signals=context.obj,
    )


@app.command("eval")
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


@app.command()
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


@app.command()
def train(
    recipe: Annotated[
        Path,
        typer.Argument(metavar="RECIPE", help="Network, data and schedule (YAML)."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder for checkpoints and the network; default: runs/RECIPE."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of labelled images, instead of the recipe's.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from FOLDER/last.pt, if it exists.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Train a network on labelled images, and export it for the pipeline, with a model card.

    Recipes to start from: {recipes}
    """
    from stream_seg.cli.train import train_command

    train_command(recipe, out=out, data=data, resume=resume, overwrite=overwrite)


@app.command()
def export(
    network: Annotated[str, typer.Argument(metavar="NETWORK", help="A network of `stream-seg networks`.")],
    weights: Annotated[
        list[str],
        typer.Option(
            metavar="FILE|NAME",
            help="A .pt, .pth or .safetensors file, a name of torchvision's, or road, which is shipped. Several times:"
            " the mean of the weights, for runs that started from the same ones.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE.onnx",
            help="The network; FILE.json beside it is its side-car. FILE.safetensors: the weights, to train from.",
        ),
    ],
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="camvid, cityscapes, voc, names with commas, or their number; if the weights state none.",
        ),
    ] = None,
    input_name: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="NAME",
            help="imagenet, unit, centred, bytes or caffe; if neither weights nor side-car state the input.",
        ),
    ] = None,
    size: Size = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of labelled images: also export int8, and check the input on them."),
    ] = None,
    split: Annotated[str | None, typer.Option(metavar="SPLIT", help="Split of DIR; default: train.")] = None,
    compare: Annotated[
        str | None, typer.Option("--held", metavar="SPLIT", help="Split of DIR to compare int8 with float32 on.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Reject weights that do not match the images of DIR.")
    ] = True,
    prefer: Prefer = None,
    overwrite: Overwrite = False,
) -> None:
    """Export published weights or a checkpoint: a network for the pipeline, or weights to train from."""
    from stream_seg.cli.export import ExportOptions, export_command
    from stream_seg.network.sidecar import parse_prefer

    options = ExportOptions(
        network,
        tuple(weights),
        out,
        classes=classes,
        input_name=input_name,
        size=size,
        data=data,
        split=split,
        compare=compare,
        check=check,
        prefer=parse_prefer(prefer or ()),
        overwrite=overwrite,
    )
    export_command(options)


@app.command()
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


@app.command()
def networks(json_file: JsonFile = None, overwrite: Overwrite = False) -> None:
    """List the networks that have a name: the shipped, trained ones, and the trainable ones."""
    from stream_seg.cli.console import print_results
    from stream_seg.cli.listing import list_networks, list_zoo, networks_table, states_table, zoo_table
    from stream_seg.cli.report import check_json_file, write_json

    check_json_file(json_file, overwrite=overwrite)
    shipped, zoo = list_networks(), list_zoo()
    print_results(networks_table(shipped), zoo_table(zoo), states_table(), json_file=json_file)
    write_json({"networks": shipped, "zoo": zoo}, json_file, overwrite=overwrite)


@app.command()
def stages() -> None:
    """List the stages with the keys that a graph file may set, their ranges and defaults."""
    from stream_seg.cli.listing import describe_stages
    from stream_seg.stages.registry import STAGES, stage_class

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print(describe_stages({name: stage_class(name) for name in STAGES}, width=width))
