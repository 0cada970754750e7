"""The command line: `stream-seg run | eval | train | export | engines | bench | doctor | networks | stages`.

Exit codes: 0 done (also after Ctrl-C or SIGTERM), 1 an unexpected error, 2 a wrong argument or config, 3 an input that
failed, 4 a network or engine that failed, 5 an output that failed, 6 a stage that failed at a frame. A signal that
comes before anything was opened ends the program as it ends any other (130, 143 in a shell).
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from stream_seg import __version__
from stream_seg.cli import engines as engines_commands
from stream_seg.errors import ConfigError, StreamSegError
from stream_seg.redact import discreet
from stream_seg.telemetry.logs import Form, configure

DEMO_INPUT = "synth://road?size=960x540&frames=300&seed=7"
DEMO_OUTPUT = "demo.mp4"

INSTALL = "install again (pip install --force-reinstall .); on Debian and Ubuntu: apt install libgl1 libglib2.0-0"
EXIT_CODES = (
    "Exit codes: 0 done (also after Ctrl-C), 1 unexpected, 2 argument or config, 3 input, 4 network, 5 output, 6 stage."
)

Preferred = Annotated[
    list[str] | None,
    typer.Option(metavar="CLASS=NUMBER", help="Add to a class's scores, for example pole=0.5. Several times."),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens, on standard error.")]
LOG_FORMAT = "Lines of the log; auto: text on a terminal, else JSON."
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


def program(*, only: str | None = None, name: str | None = None) -> None:
    """`main` with the arguments of this process, which it ends.

    A stage may hang in foreign code (a camera that says nothing); a normal exit would tear that code down under its
    thread, and crash.
    """
    code: str | int | None = 0
    try:
        main(only=only, name=name)
    except SystemExit as end:
        code = end.code
    if any(thread.daemon for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))
    sys.exit(code)


def main(arguments: list[str] | None = None, *, only: str | None = None, name: str | None = None) -> None:
    """Run a command; a known error is one line on standard error and its exit code.

    `only` leaves the choice of the command out: the arguments are that one's. `name` is the program's in help texts.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback of a half-done import; `run` sets its own
    commands = typer.main.get_group(app)
    command = commands.commands[only] if only else commands
    for part in ("make_context", "invoke"):  # where what is wrong with the arguments is raised
        setattr(command, part, _discreetly(getattr(command, part)))
    try:
        command.main(arguments, prog_name=name)
    except StreamSegError as error:
        print(f"stream-seg: {discreet(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except ImportError as error:
        print(f"stream-seg: {discreet(str(error))}; {INSTALL}", file=sys.stderr)
        sys.exit(1)
    finally:
        signal.signal(signal.SIGINT, before)


def _discreetly(part: Callable[..., Any]) -> Callable[..., Any]:
    """The same, whose complaints repeat no password."""

    @wraps(part)
    def called(*given: Any, **keys: Any) -> Any:
        try:
            return part(*given, **keys)
        except Exception as error:
            if isinstance(said := getattr(error, "message", None), str):
                error.message = discreet(said)  # type: ignore[attr-defined]
            raise

    return called


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
    verbose: Verbose = False,
    log_format: Annotated[Form, typer.Option(help=LOG_FORMAT)] = "auto",
) -> None:
    """Real-time video segmentation: frames in, steady masks and overlays out."""
    if version:
        print(__version__)
        raise typer.Exit
    configure(verbose=verbose, form=log_format)


@app.command(epilog=EXIT_CODES, context_settings=HELP_OPTIONS)  # which run_pipeline.py has from nowhere else
def run(
    context: typer.Context,
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="INPUT",
            help="A video file, a folder or glob of images, /dev/videoN or a camera number, rtsp://, http(s)://, or synth://road."
            " Without any argument: the demo, a drawn drive into demo.mp4.",
        ),
    ] = None,
    outputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="OUTPUT",
            help="Any number of: NAME.mp4, NAME.mkv (H.264), NAME.jsonl (a line per frame), FOLDER/ (a PNG label map"
            " per frame), window, http://127.0.0.1:8080 (a page).",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="The graph file (YAML); see configs/ for examples.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="STAGE.KEY=VALUE", help="Change a key of the graph, for example smooth.weight=0.6."
        ),
    ] = None,
    report_file: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Write the figures of the run as JSON.")
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Serve Prometheus metrics on this TCP port of 127.0.0.1; 0 takes a free one."
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no table.")] = False,
    verbose: Verbose = False,
    log_format: Annotated[Form | None, typer.Option(help=LOG_FORMAT)] = None,
) -> None:
    """Segment a video: INPUT through the graph into every OUTPUT.

    A live input (camera, rtsp, http) drops what it cannot keep up with and stays at the newest frame; a recorded one
    loses nothing. Ctrl-C or SIGTERM ends a run within two seconds, with playable files; that of hours takes up to 30 s.
    """
    from stream_seg.cli.run import run as run_document
    from stream_seg.config.graph_file import read_document, with_settings
    from stream_seg.config.overrides import default_document, refuse_plain, with_input, with_outputs

    before = {} if context.parent is None else context.parent.params  # those of `stream-seg -v run`
    configure(verbose=verbose or before.get("verbose", False), form=log_format or before.get("log_format", "auto"))
    if source is None and config is None:
        source, outputs = DEMO_INPUT, outputs or [DEMO_OUTPUT]
    if metrics_port is not None:
        settings = [*(settings or []), f"metrics.port={metrics_port}"]

    def asked() -> dict[str, Any]:
        document = read_document(config) if config else default_document()
        if source is not None:
            document = with_input(document, source)
        if outputs:
            document = with_outputs(document, outputs)
        document = with_settings(document, settings or [])
        refuse_plain(document, outputs or [])
        return document

    where, again = str(config or "graph"), asked if config else None
    run_document(asked(), where=where, report_file=report_file, quiet=quiet, again=again)


@app.command("eval")
def evaluate(
    network: Annotated[
        str, typer.Option(help="A network by name, or a path to an .onnx or side-car .yaml of your own.")
    ] = "road",
    data: Annotated[
        Path | None,
        typer.Option(help="The folder that holds SPLIT/ (pictures) and SPLITannot/ (label maps of the same names)."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Which split of it, val without it.")] = None,
    backend: Annotated[str, typer.Option(help="auto, tensorrt, openvino, onnxruntime or torch.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, f32, bf16, fp16, int8 or fp8.")] = "auto",
    size: Annotated[str | None, typer.Option(metavar="HxW", help="The network's input; without it, its own.")] = None,
    prefer: Preferred = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures as JSON.")] = None,
    temporal: Annotated[
        bool,
        typer.Option(
            "--temporal",
            help="Measure steadiness over time and cost instead, of every way to label a video: on drawn drives, and"
            " with --data on a split whose pictures are consecutive.",
        ),
    ] = False,
    frames: Annotated[
        int | None, typer.Option(min=2, help="With --temporal: frames of each drawn drive, 60 without it.")
    ] = None,
) -> None:
    """Measure a network on labelled pictures: mIoU, IoU per class, pixel accuracy. Or, with --temporal, on videos."""
    from rich.console import Console

    from stream_seg.cli.report import write_json
    from stream_seg.evaluation import images as pictures
    from stream_seg.evaluation import videos
    from stream_seg.files import refuse_unwritable
    from stream_seg.network.sidecar import parsed_prefer, parsed_size

    if frames is not None and not temporal:
        raise ConfigError("--frames: is the length of what --temporal draws; without that nothing is drawn")
    if split is not None and data is None and temporal:
        raise ConfigError("--split: is one of --data, which is not given")
    split = split or "val"
    if data is None and not temporal and not Path(split).is_dir():
        raise ConfigError(f"--data: is required, a folder with {split}/ and {split}annot/; here is none")
    if json_file is not None:
        refuse_unwritable(json_file)
    engine: dict[str, Any] = {
        "backend": backend,
        "precision": precision,
        "size": None if size is None else parsed_size(size),
        "prefer": parsed_prefer(prefer or ()),
    }
    if temporal:
        figures = videos.evaluate(network, data, split=split, frames=frames or 60, engine=engine)
        table = videos.as_table(figures)
    else:
        figures = pictures.evaluate(network, data or Path(), split=split, **engine)
        table = pictures.as_table(figures)
    Console(markup=False).print(table)
    if json_file is not None:
        write_json(figures, json_file)


@app.command()
def bench(
    networks: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NETWORK]...",
            help="A network by name, or a path to an .onnx or side-car; of the zoo's names too, with random weights."
            " Without any: road.",
        ),
    ] = None,
    backends: Annotated[
        list[str] | None, typer.Option("--backend", "-b", help="Again for each; without any, all that work here.")
    ] = None,
    precisions: Annotated[
        list[str] | None, typer.Option("--precision", "-p", help="Again for each; without any, all that are to be had.")
    ] = None,
    sizes: Annotated[
        list[str] | None,
        typer.Option("--size", metavar="HxW", help="The network's input, again for each; without any, its own."),
    ] = None,
    source: Annotated[
        str | None, typer.Option("--input", help="What the pictures are taken from; without it, a drawn drive at 720p.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.01, max=3600, help="How long each figure is measured.")] = 1.0,
    threads: Annotated[int, typer.Option(min=1, max=256, help="CPU threads of the network.")] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures as JSON.")] = None,
) -> None:
    """Measure the time of a frame, in the network alone and through the whole graph: p50, p95, p99, CPU."""
    from rich.console import Console

    from stream_seg.cli.bench import DRIVE, Plan, as_tables, footnotes, measured
    from stream_seg.cli.report import write_json
    from stream_seg.files import refuse_unwritable
    from stream_seg.network.sidecar import parsed_size

    signal.signal(signal.SIGINT, signal.default_int_handler)  # so that its temporary files go
    if json_file is not None:
        refuse_unwritable(json_file)
    plan = Plan(
        networks or ["road"],
        sizes=[parsed_size(size) for size in sizes or []],
        backends=backends or [],
        precisions=precisions or [],
        source=source or DRIVE,
        seconds=seconds,
        threads=threads,
    )
    with Console(stderr=True).status("bench") as status:
        facts = measured(plan, note=status.update)
    console = Console(markup=False, highlight=False)
    for table in as_tables(facts):
        console.print(table)
        console.print()
    console.print(footnotes(facts))
    if json_file is not None:
        write_json(facts, json_file)


@app.command()
def train(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="What to train, on what (YAML); see configs/train/.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="For checkpoints and the network; runs/RECIPE's name if absent."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Another folder of labelled pictures than the recipe's.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from FOLDER/last.pt, if it is there.")] = False,
) -> None:
    """Train a network on labelled pictures, and export it for the pipeline with its model card."""
    from stream_seg.cli.train import train_command

    train_command(recipe, out=out, data=data, resume=resume)


@app.command()
def export(
    network: Annotated[str, typer.Argument(metavar="NETWORK", help="A network to be trained: see `networks`.")],
    weights: Annotated[
        list[str],
        typer.Option(
            help="A .pt, .pth or .safetensors file, a name of torchvision's, or road, which is shipped. Several times,"
            " of runs with the same beginning: the mean of their weights."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE.onnx",
            help="The network; FILE.json beside it says what it is. FILE.safetensors: the weights, to train on from.",
        ),
    ],
    classes: Annotated[
        str | None,
        typer.Option(help="camvid, cityscapes, voc, names with commas, or how many; if the weights say nothing."),
    ] = None,
    picture: Annotated[
        str | None,
        typer.Option(
            "--input", help="imagenet, unit, centred, bytes or caffe; if neither weights nor side-car say it."
        ),
    ] = None,
    size: Annotated[str | None, typer.Option(metavar="HEIGHTxWIDTH", help="Of the input, for example 352x480.")] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Labelled pictures: make int8 too, and check that they fit.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Which split of them, train without it.")] = None,
    held: Annotated[str | None, typer.Option(metavar="SPLIT", help="The split that int8 is judged on.")] = None,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Refuse weights that DIR's pictures do not fit.")
    ] = True,
    prefer: Preferred = None,
) -> None:
    """Make a network that the pipeline runs from published weights or a checkpoint, or weights to pass on."""
    from stream_seg.cli.export import Wanted, export_command
    from stream_seg.network.sidecar import parsed_prefer

    said = parsed_prefer(prefer or ())
    export_command(Wanted(network, tuple(weights), out, classes, picture, size, data, split, check, held, said))


@app.command()
def doctor(
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write what was found as JSON.")
    ] = None,
) -> None:
    """Say what this machine has and whether the main job would run; exit code 1 and the one thing to do if not."""
    from rich.console import Console

    from stream_seg.cli.doctor import as_table, examined
    from stream_seg.cli.report import write_json

    found, todo = examined()
    Console().print(as_table(found, todo))
    if json_file is not None:
        write_json({**found, "todo": todo}, json_file)
    if todo is not None:
        raise typer.Exit(1)


@app.command()
def networks(
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the list as JSON.")] = None,
) -> None:
    """List the networks that have a name: those that are shipped trained, and those to be trained."""
    from rich.console import Console

    from stream_seg.cli.listing import networks_listed, networks_table, zoo_listed, zoo_table
    from stream_seg.cli.report import write_json

    listed, zoo, console = networks_listed(), zoo_listed(), Console(markup=False)
    console.print(networks_table(listed))
    console.print()
    console.print(zoo_table(zoo))
    if json_file is not None:
        write_json({"networks": listed, "zoo": zoo}, json_file)


@app.command()
def stages() -> None:
    """List every kind of stage with its keys, ranges and defaults: what a graph file may say."""
    from stream_seg.cli.listing import as_text
    from stream_seg.stages.registry import STAGES

    print(as_text(STAGES, width=shutil.get_terminal_size().columns if sys.stdout.isatty() else None))


if __name__ == "__main__":
    program()
