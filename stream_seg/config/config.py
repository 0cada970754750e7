"""A checked graph: its stages, their links, and the settings of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from stream_seg.config.document import DEADLINE_MS, MetricsConfig, SourcesConfig, TracesConfig, WatchdogConfig
from stream_seg.stages.base import Policy, Role, Stage, is_live, stream_of, traits_of


@dataclass(frozen=True)
class Node:
    """One stage of a graph: its name, its kind (the `stage:` of the graph file), the names of its inputs, itself."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    policy: Policy | None
    stage: Stage

    @property
    def role(self) -> Role:
        """Source, filter or output."""
        return traits_of(self.stage).role


@dataclass(frozen=True)
class Config:
    """A checked graph. Every node follows its inputs."""

    nodes: tuple[Node, ...]
    policy: Literal["auto", "latest", "every"]
    metrics: MetricsConfig | None
    deadline_ms: float = DEADLINE_MS
    traces: TracesConfig | None = None
    restrictions: SourcesConfig = field(default_factory=SourcesConfig)
    overwrite: bool = False
    """Outputs may replace files that exist."""
    watchdog: WatchdogConfig = field(default_factory=WatchdogConfig)

    @property
    def sources(self) -> list[Node]:
        """The nodes that are sources."""
        return [node for node in self.nodes if node.role == "source"]

    @property
    def outputs(self) -> list[Node]:
        """The nodes that are outputs."""
        return [node for node in self.nodes if node.role == "output"]

    @property
    def live(self) -> bool:
        """True if any source is live: its frames come whether or not they are taken."""
        return any(is_live(node.stage) for node in self.sources)

    @property
    def restricted(self) -> bool:
        """True if the graph file restricts the hosts that sources may reach."""
        return self.restrictions.hosts is not None

    def streams(self, name: str) -> list[str]:
        """Return the streams that reach a node; a source yields one."""
        return self._streams[name]

    @cached_property
    def _streams(self) -> dict[str, list[str]]:
        streams: dict[str, list[str]] = {}
        for node in self.nodes:
            incoming = dict.fromkeys(stream for name in node.inputs for stream in streams[name])
            streams[node.name] = list(incoming) if node.inputs else [stream_of(node.stage, node.name)]
        return streams
