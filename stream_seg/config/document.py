"""The keys of a graph file, as pydantic models; the keys of a stage are the fields of its class."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from stream_seg.files.writing import expand_home
from stream_seg.redact import quote_value, redact_secrets
from stream_seg.schema.validation import describe_unknown
from stream_seg.sources.uri import KNOWN_SCHEMES
from stream_seg.stages.base import Policy
from stream_seg.web.hosts import is_loopback

ExpandedPath = Annotated[Path, AfterValidator(expand_home)]
METRICS_TOKEN_ENV = "STREAM_SEG_METRICS_TOKEN"  # noqa: S105 - the name of an environment variable
DEADLINE_MS = 200.0
"""A frame that is older at the end of an output counts as late."""


class MetricsConfig(BaseModel):
    """The endpoint that Prometheus scrapes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    port: Annotated[int, Field(ge=0, le=65535, description="TCP port; 0 takes a free one")]
    host: Annotated[str, Field(description="address to bind")] = "127.0.0.1"
    token_file: Annotated[ExpandedPath | None, Field(description="file whose first line is the access token")] = None
    certfile: Annotated[ExpandedPath | None, Field(description="TLS certificate chain, PEM")] = None
    keyfile: Annotated[ExpandedPath | None, Field(description="TLS private key, PEM")] = None
    plain: Annotated[bool, Field(description="allow a token without TLS, for a TLS proxy in front")] = False

    @model_validator(mode="after")
    def _check_tls(self) -> MetricsConfig:
        if (self.certfile is None) != (self.keyfile is None):
            raise ValueError("certfile and keyfile must be set together")
        has_token = self.token_file is not None or bool(os.environ.get(METRICS_TOKEN_ENV))
        if has_token and self.certfile is None and not self.plain and not is_loopback(self.host):
            host = redact_secrets(self.host)
            raise ValueError(
                f"host {host} needs TLS for its token: set certfile and keyfile, or plain: true behind a TLS proxy"
            )
        return self


class TracesConfig(BaseModel):
    """Export of frame traces: to an OpenTelemetry collector, or into a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint: Annotated[str | None, Field(description="OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces")] = None
    file: Annotated[ExpandedPath | None, Field(description="append one JSON span per line to this file")] = None
    sample: Annotated[float, Field(ge=0, le=1, description="share of frames to trace; late ones always are")] = 0.01

    @field_validator("endpoint")
    @classmethod
    def _check_endpoint(cls, endpoint: str | None) -> str | None:
        if endpoint is not None and not _is_web_address(endpoint):
            raise ValueError(f"expected http:// or https:// and a host, got {quote_value(endpoint)}")
        return endpoint

    @model_validator(mode="after")
    def _check_destination(self) -> TracesConfig:
        if (self.endpoint is None) == (self.file is None):
            raise ValueError("expected either endpoint or file")
        return self


class SourcesConfig(BaseModel):
    """Restrictions on the sources of the graph; a missing key allows everything."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schemes: Annotated[tuple[str, ...] | None, Field(description="of rtsp, rtsps, http, https, file, camera")] = None
    hosts: Annotated[tuple[str, ...] | None, Field(description="names, addresses or networks such as 10.1.0.0/16")] = (
        None
    )

    @field_validator("schemes")
    @classmethod
    def _check_schemes(cls, schemes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for scheme in schemes or ():
            if scheme not in KNOWN_SCHEMES:
                raise ValueError(describe_unknown("scheme", scheme, KNOWN_SCHEMES))
        return schemes


class WatchdogConfig(BaseModel):
    """Limits of the time without progress."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stall_s: Annotated[
        float, Field(gt=0, le=3600, description="report a stage that makes no progress for so many seconds")
    ] = 8.0
    freeze_s: Annotated[
        float,
        Field(
            ge=0,
            le=3600,
            description="print the stacks and end the program if all of it stands still so long; 0: never",
        ),
    ] = 60.0


class StageKeys(BaseModel):
    """Keys that every stage may have, besides the fields of its class.

    Documents their names and meanings; `graph_file` validates the values, with more specific errors.
    """

    input: Annotated[
        str | list[str] | None, Field(description="the stage or stages to take frames from; a source has none")
    ] = None
    policy: Annotated[
        Policy | None, Field(description="latest (live) or every; without it, the policy of the graph")
    ] = None
    stage: Annotated[
        str | None, Field(description="a stage of this list, FILE.py:CLASS or MODULE:CLASS; without it, the name")
    ] = None


class Document(BaseModel):
    """The top level of a graph file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stages: Annotated[dict[str, dict[str, Any] | None], Field(description="the keys of each stage, by stage name")]
    policy: Annotated[
        Literal["auto", "latest", "every"],
        Field(description="how stages receive frames; auto: latest if a source is live, else every"),
    ] = "auto"
    metrics: Annotated[MetricsConfig | None, Field(description="serve Prometheus metrics")] = None
    traces: Annotated[TracesConfig | None, Field(description="export frame traces to an endpoint or file")] = None
    sources: Annotated[SourcesConfig, Field(description="restrict what sources may open")] = SourcesConfig()
    watchdog: Annotated[WatchdogConfig, Field(description="notice stages and programs that hang")] = WatchdogConfig()
    overwrite: Annotated[bool, Field(description="let outputs replace files that exist")] = False
    deadline_ms: Annotated[
        float, Field(gt=0, allow_inf_nan=False, description="age at an output above which a frame counts as late")
    ] = DEADLINE_MS


def _is_web_address(text: str) -> bool:
    """Return whether `text` is http:// or https:// with a host, and with a valid port or none."""
    try:
        parts = urlsplit(text)
        return (
            parts.scheme in ("http", "https") and bool(re.fullmatch(r"\S+", parts.hostname or "")) and parts.port != 0
        )
    except ValueError:
        return False
