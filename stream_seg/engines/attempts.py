"""The forms that an engine is built in, one after the other until one passes the accuracy gate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stream_seg.backends.choose import Target
from stream_seg.backends.engine import QUANTIZED
from stream_seg.backends.registry import BACKENDS
from stream_seg.engines.calibration import PRESETS, QuantizeSettings
from stream_seg.engines.recipe import EngineRecipe
from stream_seg.errors import ConfigError
from stream_seg.network.network import Network


@dataclass(frozen=True)
class Attempt:
    """A precision on a backend, and the settings to quantize with; None for a form that is not calibrated."""

    target: Target
    precision: str
    settings: QuantizeSettings | None = None

    def __str__(self) -> str:
        preset = "" if self.settings is None else f" (preset {self.settings.preset})"
        return f"{self.precision}{preset} on {self.target.backend}"


def list_attempts(recipe: EngineRecipe, network: Network, targets: Sequence[Target]) -> list[Attempt]:
    """Return the attempts at a recipe on the first of `targets`, and at its quantized precisions on the others too.

    Raises ConfigError for a precision that the first target does not have, and for settings of a quantization without
    one.
    """
    attempts = list(_attempts(recipe, network, targets))
    if "quantize" in recipe.model_fields_set and all(attempt.settings is None for attempt in attempts):
        raise ConfigError(f"quantize: no effect, since {targets[0].backend} has no quantized precision")
    return attempts


def _attempts(recipe: EngineRecipe, network: Network, targets: Sequence[Target]) -> Iterator[Attempt]:
    first = targets[0]
    for precision in _list_precisions(recipe, network, first):
        if precision not in QUANTIZED:
            yield Attempt(first, precision)
            continue
        for target in targets:
            if precision in (*target.device.precisions, *target.device.on_request):
                yield from (Attempt(target, precision, settings) for settings in _list_settings(recipe, target))


def _list_precisions(recipe: EngineRecipe, network: Network, target: Target) -> tuple[str, ...]:
    """Return the precisions to try, from the requested one up. Raises ConfigError for one that is not available."""
    precisions, on_request = target.device.precisions, target.device.on_request
    can_quantize = recipe.calibrate is not None or network.int8 is not None
    if recipe.precision == "auto":
        return tuple(p for p in precisions if p not in QUANTIZED or can_quantize)
    if recipe.precision not in (available := (*precisions, *on_request)):
        place = f"{target.backend} on {target.device.label}"
        raise ConfigError(f"precision {recipe.precision!r}: {place} offers {', '.join(available)}")
    if recipe.precision in QUANTIZED and not can_quantize:
        raise ConfigError(
            f"precision {recipe.precision}: {network.name} has no int8 form; create it with --calibrate DIR or VIDEO"
        )
    if recipe.precision in on_request:
        return (recipe.precision, *(p for p in precisions if p not in QUANTIZED))
    return precisions[precisions.index(recipe.precision) :]


def _list_settings(recipe: EngineRecipe, target: Target) -> list[QuantizeSettings | None]:
    """Return the settings to try: those of the recipe, and every other preset unless it names one.

    A compiler's quantization is symmetric in any case.
    """
    settings = recipe.quantize
    if recipe.calibrate is None:
        return [None]
    if "preset" in settings.model_fields_set or BACKENDS[target.backend].compiler is not None:
        return [settings]
    others = (preset for preset in PRESETS if preset != settings.preset)
    return [settings, *(settings.model_copy(update={"preset": preset}) for preset in others)]
