"""Build an engine into the cache: in the lowest precision from the requested one up that passes the accuracy gate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path

from stream_seg.backends.choose import Target, available_backends, find_target, pick_backend
from stream_seg.backends.engine import QUANTIZED
from stream_seg.backends.registry import BACKENDS, GROUPS, backends_of
from stream_seg.engines.attempts import Attempt, list_attempts
from stream_seg.engines.build_one import Build, Reporter
from stream_seg.engines.cache import read_engine
from stream_seg.engines.cache_entry import Entry, entry_name, make_entry, read_secret
from stream_seg.engines.cache_write import lock_key, remove_engine, store_engine
from stream_seg.engines.calibration import CalibrationSet, QuantizeSettings, sample_source
from stream_seg.engines.recipe import EngineRecipe
from stream_seg.errors import NetworkError, OutputError
from stream_seg.network.network import Network, open_network
from stream_seg.zoo import refuse_untrained


@dataclass(frozen=True)
class BuildResult:
    """An engine with its entry in the cache. `fresh` is False if it was there already.

    `fault` is the reason why it is not in the cache, though it was built.
    """

    entry: Entry
    fresh: bool
    engine: bytes = field(default=b"", repr=False, compare=False)
    fault: str | None = None


def build_engine(recipe: EngineRecipe, *, folder: Path, report: Reporter) -> BuildResult:
    """Build the engine of a recipe unless the cache in `folder` has it. Raises StreamSegError."""
    recipe.refuse_unused()
    refuse_untrained(recipe.network)
    network, backend = open_network(recipe.network, size=recipe.size), recipe.backend
    if recipe.compute_capability is not None:  # the backend need not work on this machine
        if backend in GROUPS:
            backend, _ = pick_backend(backend, available=[name for name, entry in BACKENDS.items() if entry.compiler])
        targets = [find_target(backend, recipe.compute_capability)]
    else:
        first, _ = pick_backend(backend, available=available_backends())
        targets = [find_target(first), *_find_others(backend, first)]
    return build_for_targets(network, targets, recipe, folder=folder, report=report)


def _find_others(group: str, first: str) -> Iterator[Target]:
    """Yield the targets on which int8 may be tried if it fails on the CPU backend that is the first of a group."""
    if group in GROUPS and not BACKENDS[first].needs_gpu:
        for name in backends_of(group):
            if name != first and name in available_backends():
                with suppress(NetworkError):  # one that does not load
                    yield find_target(name)


def build_for_targets(
    network: Network,
    targets: Sequence[Target],
    recipe: EngineRecipe,
    *,
    folder: Path,
    report: Reporter,
    must_store: bool = True,
) -> BuildResult:
    """Build a network for the first of `targets`, in the lowest precision that passes the accuracy gate.

    Quantized precisions are tried with every preset and on the other targets too, where they must be faster than the
    next precision of the first one. Without `must_store`, a cache that is full or cannot be trusted is the `fault` of
    the result, and no error.
    """
    secret, attempts = read_secret(), list_attempts(recipe, network, targets)
    images, classes = CalibrationSet("", (), ()), len(network.classes)
    if recipe.calibrate or recipe.labels or [a.precision for a in attempts] != ["f32"]:  # f32 is not compared
        uri, labels, count = recipe.calibrate, recipe.labels, recipe.images
        images = sample_source(uri, network.size, classes=classes, labels=labels, count=count)
    refused: dict[Attempt, str] = {}
    quantized: dict[QuantizeSettings, bytes] = {}
    for attempt, following in zip_longest(attempts, attempts[1:]):
        build = Build(recipe, network, attempt, images, report, quantized)
        instead_of = None if attempt.target is targets[0] else targets[0].backend
        key, faults = build.make_key(), _CacheFaults(tolerated=not must_store)
        with ExitStack() as lock:
            with faults.noted():
                lock.enter_context(lock_key(folder, key))
            cached = None if faults.first is not None else build.find_cached(folder, key)
            if cached is not None and instead_of in (None, cached.instead_of):
                return BuildResult(cached, fresh=False, engine=read_engine(folder, cached))
            try:
                engine, gate = build.build()
                reason = gate and gate["refused"]
                if reason is None and instead_of is not None:
                    rival = next(a for a in attempts if a.target is targets[0] and a.precision not in QUANTIZED)
                    reason = build.explain_slowness(engine, replace(build, attempt=rival))
            except NetworkError as error:
                if following is None and not refused:
                    raise
                reason = str(error).removeprefix(f"{network.name}: ")
            if reason is None:
                entry = make_entry(
                    network.name,
                    key,
                    engine,
                    suffix=build.suffix,
                    gate=gate,
                    refused=[f"{earlier}: {text}" for earlier, text in refused.items()],
                    instead_of=instead_of,
                    secret=secret,
                )
                if faults.first is None:
                    with faults.noted():
                        store_engine(folder, entry, engine)
                return BuildResult(entry, fresh=True, engine=engine, fault=faults.first)
            if faults.first is None:
                with faults.noted():
                    remove_engine(folder, entry_name(network.name, key))  # one that passed other limits or images
            refused[attempt] = reason
            then = "nothing is left to try" if following is None else f"trying {following}"
            report.line(f"{network.name}: {attempt} refused: {reason}; {then}")
    reasons = "; ".join(f"{attempt}: {reason}" for attempt, reason in refused.items())
    raise NetworkError(f"{network.name}: no precision passes: {reasons}")


class _CacheFaults:
    """Errors of the cache: raised, or only noted if they are `tolerated`. `first` is the first one."""

    def __init__(self, *, tolerated: bool) -> None:
        self._tolerated = tolerated
        self.first: str | None = None

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note the errors of the body."""
        try:
            yield
        except (NetworkError, OutputError) as error:
            if not self._tolerated:
                raise
            self.first = self.first or str(error)
