"""Make the Grafana dashboards of dashboards/: python monitoring/dashboards.py

They are committed as they come out; a test makes them again and compares, and asks a real Prometheus every expression.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from grafana_foundation_sdk.builders import dashboard, heatmap, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import BigValueColorMode
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    ValueMap,
    ValueMappingResult,
    VariableHide,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

FOLDER = Path(__file__).parent / "dashboards"
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
HERE = 'instance=~"$instance"'
STREAM = f'{HERE}, stream=~"$stream"'
STATES = (("down", "red"), ("starting", "blue"), ("stalled", "orange"), ("up", "green"), ("ended", "text"))
"""A source's states and their colours; the place in this list is what the chart is asked for."""
GPU_ROW = "GPU (dcgm-exporter)"
"""Its metrics come from another exporter, which a machine without an NVIDIA GPU does not have."""


@dataclass(frozen=True)
class Graph:
    """A chart: expressions by legend, and the unit of the axis. `kind` is timeseries, stat, states, heatmap or
    table."""

    title: str
    expressions: Mapping[str, str]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 12
    says: str = ""


def age_percentile(share: float) -> str:
    """The age below which `share` of the frames lie, by stream."""
    rate = f"rate(stream_seg_frame_age_seconds_bucket{{{STREAM}}}[$__rate_interval])"
    return f"histogram_quantile({share}, sum by (stream, le) ({rate}))"


def state_number() -> str:
    """The place of each source's state in STATES."""
    state = f"stream_seg_source_state{{{HERE}, state="
    return " + ".join(f'{n} * sum by (instance, stage) ({state}"{name}"}})' for n, (name, _) in enumerate(STATES))


def lately(metric: str) -> str:
    """By how much a counter has grown, where it has."""
    return f"increase({metric}{{{HERE}}}[$__rate_interval]) > 0"


def key_share() -> str:
    """The share of its pictures that a stage asked the network about."""
    keys = f"rate(stream_seg_key_frames_total{{{HERE}}}[$__rate_interval])"
    out = f'rate(stream_seg_frames_total{{{HERE}, outcome="out"}}[$__rate_interval])'
    cards = f"rate(stream_seg_cards_total{{{HERE}}}[$__rate_interval])"
    each = "sum by (instance, stage)"
    return f"{each} ({keys}) / ({each} ({out}) - {each} ({cards}))"


LIVE: Mapping[str, tuple[Graph, ...]] = MappingProxyType(
    {
        "Now": (
            Graph(
                "Sources delivering",
                {"": f"sum(stream_seg_source_up{{{HERE}}})"},
                kind="stat",
                width=4,
                says="How many sources deliver frames at this moment.",
            ),
            Graph(
                "Oldest picture on show",
                {"": f"max(time() - (stream_seg_last_frame_timestamp_seconds{{{STREAM}}} > 0))"},
                unit="s",
                kind="stat",
                width=5,
                says="Time since the last frame of the stream that has waited longest.",
            ),
            Graph("Frame age p99", {"": f"max({age_percentile(0.99)})"}, unit="s", kind="stat", width=5),
            Graph(
                "Late frames, 5 minutes",
                {
                    "": f"sum(increase(stream_seg_late_frames_total{{{STREAM}}}[5m])) / "
                    f"sum(increase(stream_seg_frame_age_seconds_count{{{STREAM}}}[5m]))"
                },
                unit="percentunit",
                kind="stat",
                width=5,
                says="Share of the frames that were older than deadline_ms at an output: the service level indicator.",
            ),
            Graph(
                "Running for",
                {"": f"min(time() - process_start_time_seconds{{{HERE}}})"},
                unit="s",
                kind="stat",
                width=5,
            ),
        ),
        "Streams": (
            Graph(
                "Frames per second at the outputs",
                {"{{stream}} {{stage}}": f"rate(stream_seg_frame_age_seconds_count{{{STREAM}}}[$__rate_interval])"},
                unit="fps",
            ),
            Graph(
                "Frame age",
                {f"{{{{stream}}}} p{percent}": age_percentile(percent / 100) for percent in (50, 95, 99)},
                unit="s",
                says="From the capture of a frame until an output had dealt with it.",
            ),
            Graph(
                "Frame age, all frames",
                {
                    "{{le}}": f"sum by (le) (increase(stream_seg_frame_age_seconds_bucket{{{STREAM}}}"
                    "[$__rate_interval]))"
                },
                unit="s",
                kind="heatmap",
            ),
            Graph(
                "Frames dropped, by reason",
                {
                    "{{link}} {{reason}}": f"rate(stream_seg_dropped_frames_total{{{HERE}}}[$__rate_interval])",
                    "{{stage}} {{reason}}": f"rate(stream_seg_missed_frames_total{{{HERE}}}[$__rate_interval])",
                },
                unit="fps",
                says="superseded: a newer frame took its place, since a stage could not keep up; so age stays bounded.",
            ),
        ),
        "Sources": (
            Graph("State", {"{{stage}}": state_number()}, kind="states"),
            Graph(
                "Reconnects and stalls, by reason",
                {
                    "{{stage}} back after: {{reason}}": lately("stream_seg_source_reconnects_total"),
                    "{{stage}} stalled: {{reason}}": lately("stream_seg_source_stalls_total"),
                },
                says="A reconnect counts when the source is back, by why it had been away.",
            ),
        ),
        "Labels over time": (
            Graph(
                "Share of frames that the network looked at",
                {"{{stage}}": key_share()},
                unit="percentunit",
                width=6,
                says="Key frames; the labels of the others are carried along by motion.",
            ),
            Graph(
                "Rung",
                {"{{stage}}": f"stream_seg_rung{{{HERE}}}"},
                width=6,
                says="Steps that segment has gone down to hold its target_ms; 0 is what was asked for.",
            ),
            Graph("Smoothing resets, by reason", {"{{stage}} {{reason}}": lately("stream_seg_resets_total")}, width=6),
            Graph(
                "Confidence in the motion",
                {"{{stage}} {{stream}}": f"stream_seg_motion_confidence{{{STREAM}}}"},
                unit="percentunit",
                width=6,
                says="0 where smooth forgot the past.",
            ),
        ),
        "Stages": (
            Graph(
                "Time per frame, p95",
                {
                    "{{stage}}": "histogram_quantile(0.95, sum by (stage, le) "
                    f"(rate(stream_seg_stage_duration_seconds_bucket{{{HERE}}}[$__rate_interval])))"
                },
                unit="s",
            ),
            Graph("Frames per second", {"{{stage}}": f"stream_seg_fps{{{HERE}}}"}, unit="fps"),
            Graph("Frames waiting in links", {"{{link}}": f"stream_seg_queue_depth_frames{{{HERE}}}"}),
            Graph("What computes", {"": f"stream_seg_engine_info{{{HERE}}}"}, kind="table"),
        ),
    }
)
MACHINE: Mapping[str, tuple[Graph, ...]] = MappingProxyType(
    {
        "Process": (
            Graph(
                "CPU cores in use",
                {"{{instance}}": f"rate(process_cpu_seconds_total{{{HERE}}}[$__rate_interval])"},
            ),
            Graph("Memory", {"{{instance}}": f"process_resident_memory_bytes{{{HERE}}}"}, unit="bytes"),
            Graph(
                "Open files",
                {
                    "{{instance}} open": f"process_open_fds{{{HERE}}}",
                    "{{instance}} allowed": f"process_max_fds{{{HERE}}}",
                },
            ),
            Graph(
                "Time since start",
                {"{{instance}}": f"time() - process_start_time_seconds{{{HERE}}}"},
                unit="s",
                says="A saw is a crash loop.",
            ),
        ),
        GPU_ROW: (
            Graph("GPU busy", {"GPU {{gpu}}": "DCGM_FI_DEV_GPU_UTIL"}, unit="percent"),
            Graph("GPU memory", {"GPU {{gpu}}": "DCGM_FI_DEV_FB_USED * 1048576"}, unit="bytes"),
            Graph("GPU temperature", {"GPU {{gpu}}": "DCGM_FI_DEV_GPU_TEMP"}, unit="celsius"),
            Graph("GPU power", {"GPU {{gpu}}": "DCGM_FI_DEV_POWER_USAGE"}, unit="watt"),
        ),
    }
)


def board(title: str, uid: str, rows: Mapping[str, tuple[Graph, ...]]) -> str:
    """A dashboard as Grafana's JSON."""
    built = (
        dashboard.Dashboard(title)
        .uid(uid)
        .tags(["stream_seg"])
        .refresh("5s")
        .time("now-15m", "now")
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(choice("instance", "label_values(stream_seg_frames_total, instance)"))
        .with_variable(choice("stream", "label_values(stream_seg_frame_age_seconds_count, stream)"))
    )
    numbers = count(1)
    for heading, graphs in rows.items():
        built = built.with_row(dashboard.Row(heading).id(next(numbers)))
        for graph in graphs:
            built = built.with_panel(panel(graph).id(next(numbers)))
    return JSONEncoder(sort_keys=True, indent=2).encode(built.build()) + "\n"


def choice(name: str, query: str) -> dashboard.QueryVariable:
    """A variable of which any number of values can be chosen."""
    return (
        dashboard.QueryVariable(name)
        .datasource(SOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .hide(VariableHide.DONT_HIDE)
        .multi(True)
        .include_all(True)
        .current(VariableOption(selected=True, text="All", value="$__all"))
    )


Panel: TypeAlias = timeseries.Panel | stat.Panel | statetimeline.Panel | heatmap.Panel | table.Panel


def panel(graph: Graph) -> Panel:
    """A panel that shows a graph."""
    built: Panel
    if graph.kind == "stat":
        built = stat.Panel().color_mode(BigValueColorMode.VALUE)
    elif graph.kind == "states":
        names = {str(n): ValueMappingResult(text=name, color=color) for n, (name, color) in enumerate(STATES)}
        built = statetimeline.Panel().mappings([ValueMap(options=names)])
    elif graph.kind == "heatmap":
        scheme = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Blues").steps(64)
        built = heatmap.Panel().calculate(False).color(scheme)
    elif graph.kind == "table":
        built = table.Panel()
    else:
        built = timeseries.Panel().fill_opacity(8).line_width(1.5).min(0)
    built = built.title(graph.title).unit(graph.unit).datasource(SOURCE).span(graph.width).height(7)
    if graph.says:
        built = built.description(graph.says)
    for place, (legend, expression) in enumerate(graph.expressions.items()):
        query = prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(chr(ord("A") + place))
        if graph.kind == "heatmap":
            query = query.format(PromQueryFormat.HEATMAP)
        if graph.kind == "table":
            query = query.format(PromQueryFormat.TABLE).instant()
        built = built.with_target(query)
    return built


DASHBOARDS: Mapping[str, str] = MappingProxyType(
    {
        "stream_seg_live.json": board("stream_seg: live", "stream-seg-live", LIVE),
        "stream_seg_machine.json": board("stream_seg: machine", "stream-seg-machine", MACHINE),
    }
)

if __name__ == "__main__":
    for name, text in DASHBOARDS.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(FOLDER / name)
