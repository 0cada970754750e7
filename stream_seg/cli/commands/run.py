"""`stream-seg run`, the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from stream_seg.cli import switches
from stream_seg.cli.console import terminal_console
from stream_seg.cli.options import LOG_FORMAT, LOG_FORMATS, Overwrite, Verbose
from stream_seg.telemetry.logs import LogFormat, configure


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
    speed: switches.Speed = None,
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
