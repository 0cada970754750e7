"""Stage classes by the name that a graph file uses, and the import of a user's own."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import cast
from zlib import crc32

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as validated_dataclass
from pydantic.dataclasses import is_pydantic_dataclass

from stream_seg.errors import ConfigError, describe_exception
from stream_seg.redact import quote_value
from stream_seg.schema.validation import describe_unknown
from stream_seg.stages.base import STRICT, Role, Stage, Traits, traits_of

STAGES: Mapping[str, str] = MappingProxyType(
    {
        "capture": "stream_seg.stages.capture:Capture",
        "synthetic": "stream_seg.stages.synthetic:Synthetic",
        "segment": "stream_seg.stages.segment:Segment",
        "smooth": "stream_seg.stages.smooth:Smooth",
        "overlay": "stream_seg.stages.overlay:Overlay",
        "write": "stream_seg.stages.write:Write",
        "show": "stream_seg.stages.show:Show",
        "masks": "stream_seg.stages.masks:Masks",
        "records": "stream_seg.stages.records:Records",
        "serve": "stream_seg.stages.serve:Serve",
    }
)
"""Module and class by stage name; imported when a graph uses the stage."""


PLAIN = ConfigDict(**STRICT, arbitrary_types_allowed=True)
"""The pydantic configuration of a user's plain dataclass."""


def stage_class(name: str) -> type[Stage]:
    """Return the class of a stage of STAGES."""
    module, _, class_name = STAGES[name].partition(":")
    stage: type[Stage] = getattr(importlib.import_module(module), class_name)
    return stage


def classes_of(role: Role) -> Iterator[tuple[str, type[Stage]]]:
    """Yield (name, class) of every stage of STAGES with this role."""
    for name in STAGES:
        if traits_of(stage_class(name)).role == role:
            yield name, stage_class(name)


class StageLoader:
    """Resolves the `stage:` of a graph file: a name of STAGES, FILE.py:CLASS, MODULE:CLASS, or a class.

    A FILE is relative to `folder`. Each is imported once. After `close` a class that was not loaded before is refused,
    so that a reload of the graph file cannot run new code.
    """

    def __init__(self, folder: Path = Path()) -> None:
        self._folder = folder
        self._loaded: dict[object, type[Stage]] = {}
        self._modules: dict[str, ModuleType] = {}
        self._closed = False

    def close(self) -> None:
        """Load no further code from here on."""
        self._closed = True

    def load(self, reference: object) -> type[Stage]:
        """Return the class that `reference` names. Raises ConfigError: one line that names file and line number."""
        if not isinstance(reference, str | type):
            raise ConfigError(f"expected the name of a stage, got {quote_value(reference)}")
        if isinstance(reference, str) and reference in STAGES:
            return stage_class(reference)
        if reference not in self._loaded:
            if self._closed:
                raise ConfigError(f"{quote_value(reference)}: a reload loads no new code; start the program again")
            self._loaded[reference] = self._import(reference)
        return self._loaded[reference]

    def _import(self, reference: object) -> type[Stage]:
        if isinstance(reference, type):
            return _validate_class(reference)
        source, _, class_name = str(reference).rpartition(":")
        if not source or not class_name.isidentifier():
            raise ConfigError(f"{describe_unknown('stage', reference, STAGES)}, or FILE.py:CLASS, MODULE:CLASS")
        module = self._modules.get(source) or _import_module(source, self._folder)
        self._modules[source] = module
        stage = getattr(module, class_name, None)
        if not isinstance(stage, type):
            classes = [key for key, value in vars(module).items() if isinstance(value, type) and is_dataclass(value)]
            raise ConfigError(f"{module.__file__}, line 1: {describe_unknown('class', class_name, classes)}")
        return _validate_class(stage)


def _import_module(source: str, folder: Path) -> ModuleType:
    """Import FILE.py (relative to `folder`) or MODULE (from the Python path or `folder`).

    Raises ConfigError for a missing file or module and for everything that the user's code raises.
    """
    path = folder / Path(source).expanduser()
    if source.endswith(".py") and not path.is_file():
        raise ConfigError(f"{quote_value(source)}: no such file: {path}")
    sys.path.insert(0, str(folder.resolve()))
    try:
        if not source.endswith(".py"):
            return importlib.import_module(source)
        # a user's json.py must not replace the standard library's, nor another folder's
        name = f"stream_seg_user_{path.stem}_{crc32(str(path.resolve()).encode()):x}"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{source}.".startswith(f"{error.name}."):
            message = "no such module on the Python path or beside the graph file"
            raise ConfigError(f"{quote_value(source)}: {message}") from error
        raise ConfigError(f"{quote_value(source)}: {_describe_failure(error)}") from error
    finally:
        sys.path.remove(str(folder.resolve()))


def _describe_failure(error: BaseException) -> str:
    """Describe an exception of imported code in one line: file, line of that file, type and message."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: {type(error).__name__}: {error.msg}"
    calls = traceback.extract_tb(error.__traceback__)
    own = [call for call in calls if call.filename != __file__ and "importlib" not in call.filename]
    place = f"{own[0].filename}, line {own[0].lineno}: " if own else ""
    return place + describe_exception(error)


def _validate_class(stage: type) -> type[Stage]:
    """Return a stage class whose fields are validated by pydantic. Raises ConfigError for a class that is no stage."""
    if not (is_dataclass(stage) and any("__call__" in vars(base) for base in stage.__mro__)):
        raise ConfigError(f"{_place(stage)}: {stage.__name__} is no stage: a dataclass with a method __call__(frames)")
    if not isinstance(getattr(stage, "traits", Traits()), Traits):
        raise ConfigError(f"{_place(stage)}: {stage.__name__}.traits is no stream_seg.stages.base.Traits")
    if is_pydantic_dataclass(stage):
        return cast("type[Stage]", stage)
    frozen = stage.__dataclass_params__.frozen  # type: ignore[attr-defined]
    try:
        return cast("type[Stage]", validated_dataclass(config=PLAIN, frozen=frozen)(stage))
    except Exception as error:
        raise ConfigError(f"{_place(stage)}: {stage.__name__}: {describe_exception(error)}") from error


def _place(stage: type) -> str:
    """Return file and line of a class, as far as they are known."""
    try:
        return f"{inspect.getsourcefile(stage)}, line {inspect.getsourcelines(stage)[1]}"
    except (OSError, TypeError):
        return f"{stage.__module__}.{stage.__qualname__}"
