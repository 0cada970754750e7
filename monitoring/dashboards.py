"""Generate the Grafana dashboards in dashboards/: python monitoring/dashboards.py

The generated files are committed. Tests compare them with the output of this script and query a real Prometheus for
every expression.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import BigValueColorMode, StackingMode
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
INSTANCE = 'instance=~"$instance"'
STREAM = f'{INSTANCE}, stream=~"$stream"'
SERIES = ("timeseries", "stacked", "states")
"""Kinds of panel that show one line for each program."""
STATES = (("down", "red"), ("starting", "blue"), ("stalled", "orange"), ("up", "green"), ("ended", "text"))
"""States of a source and their colours; the chart shows the index in this list."""
GPU_ROW = "GPU (dcgm-exporter)"
"""Row whose metrics come from another exporter, which exists only on machines with an NVIDIA GPU."""


@dataclass(frozen=True)
class Chart:
    """A panel: its expressions by legend, and the unit of its axis.

    `kind` is timeseries, stacked, stat, states, heatmap or table; `width` is in 24ths of the dashboard. A dashboard
    shows several programs, so lines are kept apart by `instance`, which the legends of SERIES begin with.
    """

    title: str
    expressions: Mapping[str, str]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 12
    description: str = ""


def age_percentile(share: float) -> str:
    """Return the expression of a percentile of the frame age, by program and stream; `share` is 0 to 1."""
    rate = f"rate(stream_seg_frame_age_seconds_bucket{{{STREAM}}}[$__rate_interval])"
    return f"histogram_quantile({share}, sum by (instance, stream, le) ({rate}))"


def source_state_index() -> str:
    """Return the expression of the index in STATES of each source's state."""
    state = f"stream_seg_source_state{{{INSTANCE}, state="
    return " + ".join(f'{n} * sum by (instance, stage) ({state}"{name}"}})' for n, (name, _) in enumerate(STATES))


def recent_increase(metric: str) -> str:
    """Return the expression of the increase of a counter, without series that did not increase."""
    return f"increase({metric}{{{INSTANCE}}}[$__rate_interval]) > 0"


def key_frame_share() -> str:
    """Return the expression of the key frames among the images that a stage yields, 0 to 1."""
    keys = f"rate(stream_seg_key_frames_total{{{INSTANCE}}}[$__rate_interval])"
    frames = f'rate(stream_seg_frames_total{{{INSTANCE}, outcome="out"}}[$__rate_interval])'
    placeholders = f"rate(stream_seg_placeholder_frames_total{{{INSTANCE}}}[$__rate_interval])"
    by_stage = "sum by (instance, stage)"
    return f"{by_stage} ({keys}) / ({by_stage} ({frames}) - {by_stage} ({placeholders}))"


LIVE: Mapping[str, tuple[Chart, ...]] = MappingProxyType(
    {
        "Now": (
            Chart(
                "Sources delivering",
                {"": f"sum(stream_seg_source_up{{{INSTANCE}}})"},
                kind="stat",
                width=4,
                description="Number of sources that deliver frames now.",
            ),
            Chart(
                "Longest time without a frame",
                {"": f"max(time() - (stream_seg_last_frame_timestamp_seconds{{{STREAM}}} > 0))"},
                unit="s",
                kind="stat",
                width=5,
                description="Of all streams that had a frame: time since the last one reached an output.",
            ),
            Chart("Frame age p99", {"": f"max({age_percentile(0.99)})"}, unit="s", kind="stat", width=5),
            Chart(
                "Late frames, 5 minutes",
                {
                    "": f"sum(increase(stream_seg_late_frames_total{{{STREAM}}}[5m])) / "
                    f"sum(increase(stream_seg_frame_age_seconds_count{{{STREAM}}}[5m]))"
                },
                unit="percentunit",
                kind="stat",
                width=5,
                description="Share of frames older than deadline_ms at an output: the service level indicator.",
            ),
            Chart(
                "Uptime",
                {"": f"min(time() - process_start_time_seconds{{{INSTANCE}}})"},
                unit="s",
                kind="stat",
                width=5,
            ),
        ),
        "Streams": (
            Chart(
                "Frames per second at the outputs",
                {"{{stream}} {{stage}}": f"rate(stream_seg_frame_age_seconds_count{{{STREAM}}}[$__rate_interval])"},
                unit="fps",
            ),
            Chart(
                "Frame age",
                {f"{{{{stream}}}} p{percent}": age_percentile(percent / 100) for percent in (50, 95, 99)},
                unit="s",
                description="From the capture of a frame to the end of its output.",
            ),
            Chart(
                "Frame age, all frames",
                {
                    "{{le}}": f"sum by (le) (increase(stream_seg_frame_age_seconds_bucket{{{STREAM}}}"
                    "[$__rate_interval]))"
                },
                unit="s",
                kind="heatmap",
            ),
            Chart(
                "Frames dropped, by reason",
                {
                    "{{link}} {{reason}}": f"rate(stream_seg_dropped_frames_total{{{INSTANCE}}}[$__rate_interval])",
                    "{{stage}} {{reason}}": f"rate(stream_seg_missed_frames_total{{{INSTANCE}}}[$__rate_interval])",
                },
                unit="fps",
                description="superseded: replaced by a newer frame while a stage was busy, which bounds the frame age.",
            ),
        ),
        "Classes": (
            Chart(
                "Class shares",
                {"{{stream}} {{class}}": f"avg by (instance, stream, class) (stream_seg_class_share{{{STREAM}}})"},
                unit="percentunit",
                kind="stacked",
                width=24,
                description="Share of the image that each class covers, sampled at every scrape; the rest is void.",
            ),
        ),
        "Sources": (
            Chart("State", {"{{stage}}": source_state_index()}, kind="states", width=8),
            Chart(
                "Reconnects and stalls, by reason",
                {
                    "{{stage}} reconnected after: {{reason}}": recent_increase("stream_seg_source_reconnects_total"),
                    "{{stage}} stalled: {{reason}}": recent_increase("stream_seg_source_stalls_total"),
                },
                width=8,
                description="A reconnect is counted when the source is back, with the reason of its outage.",
            ),
            Chart(
                "Placeholder frames per second",
                {"{{stage}}": f"rate(stream_seg_placeholder_frames_total{{{INSTANCE}}}[$__rate_interval])"},
                unit="fps",
                width=8,
                description="Frames in place of a missing image, while a source is away or repeats one image.",
            ),
        ),
        "Labels over time": (
            Chart(
                "Key frames, share of frames",
                {"{{stage}}": key_frame_share()},
                unit="percentunit",
                width=8,
                description="Frames that the network processed; the labels of the others follow the motion.",
            ),
            Chart(
                "Quality level",
                {"{{stage}}": f"stream_seg_quality_level{{{INSTANCE}}}"},
                width=8,
                description="0 is full quality. segment raises the level to keep frames within its target_ms.",
            ),
            Chart(
                "Quality changes, by reason",
                {"{{stage}} {{reason}}": recent_increase("stream_seg_quality_changes_total")},
                width=8,
                description="slow: lowered because frames were too old; spare: raised because there was time to spare.",
            ),
            Chart("Smoothing resets, by reason", {"{{stage}} {{reason}}": recent_increase("stream_seg_resets_total")}),
            Chart(
                "Confidence in the motion",
                {"{{stage}} {{stream}}": f"stream_seg_motion_confidence{{{STREAM}}}"},
                unit="percentunit",
                description="0 after a smoothing reset.",
            ),
        ),
        "Stages": (
            Chart(
                "Time per frame, p95",
                {
                    "{{stage}}": "histogram_quantile(0.95, sum by (instance, stage, le) "
                    f"(rate(stream_seg_stage_duration_seconds_bucket{{{INSTANCE}}}[$__rate_interval])))"
                },
                unit="s",
            ),
            Chart("Frames per second", {"{{stage}}": f"stream_seg_fps{{{INSTANCE}}}"}, unit="fps"),
            Chart(
                "Stages without progress",
                {"{{instance}} {{stage}}": f"max by (instance, stage) (stream_seg_stage_stalled{{{INSTANCE}}})"},
                description="1 while a stage makes no progress, such as one that hangs at a frame.",
            ),
            Chart("Frames waiting in links", {"{{link}}": f"stream_seg_queue_depth_frames{{{INSTANCE}}}"}),
            Chart("Engines", {"": f"stream_seg_engine_info{{{INSTANCE}}}"}, kind="table"),
        ),
    }
)
MACHINE: Mapping[str, tuple[Chart, ...]] = MappingProxyType(
    {
        "Process": (
            Chart(
                "CPU cores in use",
                {"{{instance}}": f"rate(process_cpu_seconds_total{{{INSTANCE}}}[$__rate_interval])"},
            ),
            Chart("Memory", {"{{instance}}": f"process_resident_memory_bytes{{{INSTANCE}}}"}, unit="bytes"),
            Chart(
                "Open files",
                {
                    "{{instance}} open": f"process_open_fds{{{INSTANCE}}}",
                    "{{instance}} limit": f"process_max_fds{{{INSTANCE}}}",
                },
            ),
            Chart(
                "Time since start",
                {"{{instance}}": f"time() - process_start_time_seconds{{{INSTANCE}}}"},
                unit="s",
                description="Repeated drops to zero are a crash loop.",
            ),
        ),
        GPU_ROW: (
            Chart("GPU busy", {"GPU {{gpu}}": "DCGM_FI_DEV_GPU_UTIL"}, unit="percent"),
            Chart("GPU memory", {"GPU {{gpu}}": "DCGM_FI_DEV_FB_USED * 1048576"}, unit="bytes"),
            Chart("GPU temperature", {"GPU {{gpu}}": "DCGM_FI_DEV_GPU_TEMP"}, unit="celsius"),
            Chart("GPU power", {"GPU {{gpu}}": "DCGM_FI_DEV_POWER_USAGE"}, unit="watt"),
        ),
    }
)


def build_dashboard(title: str, uid: str, rows: Mapping[str, tuple[Chart, ...]]) -> str:
    """Return a dashboard as Grafana's JSON."""
    builder = (
        dashboard.Dashboard(title)
        .uid(uid)
        .tags(["stream_seg"])
        .refresh("5s")
        .time("now-15m", "now")
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(build_variable("instance", "label_values(stream_seg_frames_total, instance)"))
        .with_variable(build_variable("stream", "label_values(stream_seg_frame_age_seconds_count, stream)"))
    )
    ids = count(1)
    for heading, charts in rows.items():
        builder = builder.with_row(dashboard.Row(heading).id(next(ids)))
        for chart in charts:
            builder = builder.with_panel(build_panel(chart).id(next(ids)))
    return JSONEncoder(sort_keys=True, indent=2).encode(builder.build()) + "\n"


def build_variable(name: str, query: str) -> dashboard.QueryVariable:
    """Return a variable with multiple choice."""
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


def build_panel(chart: Chart) -> Panel:
    """Return the panel of a chart."""
    panel: Panel
    if chart.kind == "stat":
        panel = stat.Panel().color_mode(BigValueColorMode.VALUE)
    elif chart.kind == "states":
        names = {str(n): ValueMappingResult(text=name, color=color) for n, (name, color) in enumerate(STATES)}
        panel = statetimeline.Panel().mappings([ValueMap(options=names)])
    elif chart.kind == "heatmap":
        scheme = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Blues").steps(64)
        panel = heatmap.Panel().calculate(False).color(scheme)
    elif chart.kind == "table":
        panel = table.Panel()
    else:
        panel = timeseries.Panel().fill_opacity(8).line_width(1.5).min(0)
        if chart.kind == "stacked":
            panel = panel.fill_opacity(40).max(1).stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    panel = panel.title(chart.title).unit(chart.unit).datasource(SOURCE).span(chart.width).height(7)
    if chart.description:
        panel = panel.description(chart.description)
    for index, (legend, expression) in enumerate(chart.expressions.items()):
        legend = f"{{{{instance}}}} {legend}" if chart.kind in SERIES and "{{instance}}" not in legend else legend
        query = prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(chr(ord("A") + index))
        if chart.kind == "heatmap":
            query = query.format(PromQueryFormat.HEATMAP)
        if chart.kind == "table":
            query = query.format(PromQueryFormat.TABLE).instant()
        panel = panel.with_target(query)
    return panel


DASHBOARDS: Mapping[str, str] = MappingProxyType(
    {
        "stream_seg_live.json": build_dashboard("stream_seg: live", "stream-seg-live", LIVE),
        "stream_seg_machine.json": build_dashboard("stream_seg: machine", "stream-seg-machine", MACHINE),
    }
)
"""Dashboards by file name."""

if __name__ == "__main__":
    for name, text in DASHBOARDS.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(FOLDER / name)
