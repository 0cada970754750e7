"""The stage protocol: a stage is a function from frames to frames.

A stage is a dataclass whose fields are its YAML keys and whose `__call__` is a generator. It opens its device in a
`with` block around its loop, so that closing the generator closes the device. It sees no socket, no thread and no other
stage, so `list(Smooth()(frames))` is a complete test.

* A source ignores its input. It may return {reason: count} of the frames that it missed after its last one.
* A filter yields frames in order. It passes placeholder frames (`frame.signal`) through unchanged.
* An output yields every frame after it has written or shown it, so that its time is measured like that of any stage. An
  output that returns early ends the run.

Optional members, which the runtime, the command line and the metrics use; `Traits` holds their defaults:

* `traits`: class attribute, a `Traits`
* `bind(context) -> Stage`: return the stage with the settings of the running graph applied
* `argument(text) -> keys | None`: class method, the keys for a command-line INPUT or OUTPUT, None for another stage's
* `stream`: name of the stream that a source yields; by default the name of the stage
* `live`: True for a source whose frames come whether or not they are taken
* `expected_frames() -> int | None`: number of frames of a recorded source
* `location() -> Source`: address that a source opens, for the `sources:` restrictions of the graph file and the outputs
* `path`: file or folder that an output writes; checked against the inputs and the other outputs, and refused before the
  run if it exists and `overwrite` is not set
* `keep_gb`: set if an output removes old files of its `path`; refused if an input could be one of them
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, get_args

from pydantic import ConfigDict

from stream_seg.errors import ConfigError, StreamSegError, describe_exception
from stream_seg.frame import Frame, Semantic

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

Frames: TypeAlias = Iterator[Frame]
Policy: TypeAlias = Literal["latest", "every"]
"""Selection of the frames that a stage receives: only the newest (live), or every one (recorded)."""
Role: TypeAlias = Literal["source", "filter", "output"]
Product: TypeAlias = Literal["labels", "smoothing"]
Images: TypeAlias = Literal["any", "drawn", "undrawn"]

STRICT = ConfigDict(extra="forbid", strict=False, validate_default=True)
"""The pydantic configuration of every stage: `@dataclass(config=STRICT)` with pydantic.dataclasses.dataclass."""


class Stage(Protocol):
    """Frames in, frames out, one at a time and in order."""

    def __call__(self, frames: Frames, /) -> Frames: ...


@dataclass(frozen=True)
class Traits:
    """Properties of a stage class that the rest of the program needs to know."""

    role: Role = "filter"
    produces: tuple[Product, ...] = ()
    """Parts that the stage adds to frames, counted as metrics: labels (engine, key frames), smoothing (resets)."""
    replaces_labels: bool = False
    """Labels that frames have already would be lost in this stage: it is refused behind a stage that produces them."""
    age_feedback: bool = False
    """Outputs report the age of each frame back to this stage, as `Frame.ages`."""
    draws: bool = False
    """The stage draws on images. An output that needs no drawn image takes its frames before this stage."""
    images: Images = "any"
    """Images that an output expects: drawn by the stages before it, undrawn (it draws itself), or any."""
    watched: bool = False
    """People watch the output: where every output is watched, a recording plays at its own speed."""
    argument: str = ""
    """The form of the command-line INPUT or OUTPUT that the stage accepts, for help texts and errors."""

    def __post_init__(self) -> None:
        for name, kind in (("role", Role), ("images", Images)):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"Traits.{name}: expected {' or '.join(get_args(kind))}, got {getattr(self, name)!r}")


@dataclass(frozen=True)
class Context:
    """Facts about the running graph that `bind` passes to a stage. The defaults hold for a stage used on its own."""

    name: str = ""
    """Name of the stage in the graph."""
    policy: Policy = "every"
    """Selection of the frames that the stage receives."""
    restricted: bool = False
    """The graph file restricts the hosts that sources may reach."""
    other_sources: bool = False
    """Other sources run beside this one and go on without it."""
    running: bool = False
    """The source is added to a running graph."""
    recorded: bool = False
    """No source is live."""
    only_watched: bool = False
    """Every output is one that people watch: nothing is written."""
    attended: bool = False
    """A person ends the run: an output that people watch may stay after the last frame."""
    overwrite: bool = False
    """An output may replace files that exist."""
    ready: Callable[[], bool] = lambda: False
    """Return whether the next frame is known to have arrived, so that asking for it does not wait. For the thread of
    the stage."""
    begin: Callable[[Frame], None] = lambda frame: None
    """Note the frame that the stage works on from now on, where it has taken later ones too: errors and stalls name it.
    For the thread of the stage."""
    stopping: Callable[[], bool] = lambda: False
    """Return whether the run has ended or is about to."""
    live: Callable[[str], bool] = lambda stream: False
    """Return whether a stream comes from a live source."""
    ended: Callable[[str], bool] = lambda stream: False
    """Return whether the source of a stream has ended; its last frames may still be under way."""
    complete: Callable[[str, int], bool] = lambda stream, seq: False
    """Return whether `seq` is the number of the last frame of a stream, whose source has ended or failed by itself."""
    fail: Callable[[StreamSegError], None] = lambda error: None
    """End the run with an error, from a thread of the stage."""
    failed: Callable[[], bool] = lambda: False
    """Return whether an error ends the run."""
    truncated: Callable[[str], None] = lambda file: None
    """Name a file that lacks the end of its stream: the error of the run lists it."""
    note: Callable[[str], None] = lambda line: None
    """Add a line to the report of the run: the stage does without something that this system does not offer."""
    streams: Callable[[], Collection[str]] | None = None
    """Return the streams that reach the stage now; None: unknown, every stream that ever came."""
    announce: Callable[[str], None] = lambda message: None
    """Show the user a line, such as the address of a page."""
    busy: Callable[..., None] = lambda doing, within_s=0.0: None
    """Tell the watchdog what the stage does, busy("opening the camera", within_s=30), and the seconds that this may
    take before the stage counts as stalled. Holds until the next frame; each call is a sign of progress."""
    stalls: Callable[[], Sequence[str]] = tuple
    """Return a line for each stage that makes no progress now."""
    registry: CollectorRegistry | None = field(default=None, repr=False)
    """The Prometheus registry of the graph; a stage may add metrics of its own."""


def traits_of(stage: Stage | type[Stage]) -> Traits:
    """Return the traits of a stage or stage class; the defaults are those of a filter."""
    traits: Traits = getattr(stage, "traits", Traits())
    return traits


def bind(stage: Stage, context: Context) -> Stage:
    """Return the stage with the settings of the running graph applied. Raises ConfigError where they do not fit."""
    try:
        bound: Stage = stage.bind(context) if hasattr(stage, "bind") else stage
    except StreamSegError:
        raise
    except Exception as error:
        raise ConfigError(f"stage {context.name}: bind failed: {describe_exception(error)}") from error
    if not callable(bound):
        raise ConfigError(f"stage {context.name}: bind returned {type(bound).__name__}, expected a stage")
    return bound


def stream_of(stage: Stage, name: str) -> str:
    """Return the name of the stream that the source `name` yields."""
    return str(getattr(stage, "stream", name))


def is_live(stage: Stage) -> bool:
    """Return whether the frames of a source come whether or not they are taken."""
    return bool(getattr(stage, "live", False))


def expected_frames(stage: Stage) -> int | None:
    """Return the number of frames that a source will yield, None if unknown. Raises SourceError as opening it would."""
    count: int | None = stage.expected_frames() if hasattr(stage, "expected_frames") else None
    return count


def require_semantic(frame: Frame, stage: str) -> Semantic:
    """Return the segmentation of a frame. Raises ConfigError if no stage before `stage` has labelled it."""
    if frame.semantic is None:
        raise ConfigError(f"{stage}: the frames have no classes; put a segment stage before it")
    return frame.semantic


def parse_argument(stage: type[Stage], text: str) -> Mapping[str, Any] | None:
    """Return the keys of a stage for a command-line INPUT or OUTPUT, None if the argument is not for this stage."""
    keys: Mapping[str, Any] | None = stage.argument(text) if hasattr(stage, "argument") else None
    return keys
