"""INPUT and OUTPUT of `run` as typed: the output of a run that names none, and inputs in the place of outputs."""

from __future__ import annotations

import glob
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stream_seg.errors import ConfigError, OutputError
from stream_seg.files.templates import free_path
from stream_seg.redact import redact_secrets
from stream_seg.sources.uri import IMAGE_SUFFIXES, VIDEO_SUFFIXES, parse_source

DEMO_INPUT = "synth://road?size=960x540&frames=300&seed=7"
DEMO_OUTPUT, DEMO_TITLE = "demo.mp4", "stream-seg demo"
"""The file of the demo, and the title in its header, by which the next demo knows that it may replace the file."""
PAGE = "http://127.0.0.1:8080"
MANY = 4
"""Names that an error lists; more are shortened."""


@dataclass(frozen=True)
class Arguments:
    """INPUT and OUTPUTs of a run, the changes of the graph that they need, and a line about them for the user."""

    source: str | None
    outputs: Sequence[str]
    settings: Sequence[str] = field(default=())
    note: str = ""


def complete_arguments(
    source: str | None,
    outputs: Sequence[str],
    *,
    graph_file: bool = False,
    overwrite: bool = False,
    endless: bool = False,
) -> Arguments:
    """Return the arguments with those that are not named. Raises OutputError or ConfigError for further inputs.

    Without a graph file: no INPUT is the demo; no OUTPUT is a video beside a file, label maps beside images, and for
    any other source, or one that is played in a loop (`endless`), a window, or a page where there is no screen.
    """
    if source is None or (graph_file and not outputs):
        return Arguments(source, outputs) if graph_file else _demo()
    if outputs:
        refuse_further_inputs(source, outputs, overwrite=overwrite)
        return Arguments(source, outputs)
    return _watch(source) if endless else _default_output(source, overwrite=overwrite)


def _demo() -> Arguments:
    """Return the arguments of the demo, which replaces a file only if a demo wrote it."""
    path = Path(DEMO_OUTPUT)
    replaces = is_demo(path)
    if not replaces:
        path = free_path(path)
    settings = [f"write.title={DEMO_TITLE}", *(["overwrite=true"] if replaces else [])]
    return Arguments(DEMO_INPUT, [str(path)], settings)


def is_demo(path: Path) -> bool:
    """Return whether a file is a video that the demo wrote: whether it has the title of the demo."""
    import av

    if not path.is_file():  # opening a pipe would block
        return False
    try:
        with av.open(str(path), format="mp4") as video:  # the format given, FFmpeg follows no playlist
            return video.metadata.get("title") == DEMO_TITLE
    except (OSError, av.FFmpegError):
        return False


def _default_output(source: str, *, overwrite: bool) -> Arguments:
    """Return the arguments of a run that names no OUTPUT."""
    try:
        parsed = parse_source(source)
    except ConfigError:  # the check of the graph reports it, or a stage of a user's own accepts it
        return Arguments(source, ())
    path = Path(parsed.address)
    if parsed.kind == "file":
        target = _place(path.with_name(f"{path.stem}_seg.mp4"), overwrite=overwrite)
        return Arguments(source, [str(target)], note=f"no OUTPUT: writes {target}")
    if parsed.kind == "images":
        target = _place(_name_folder(path), overwrite=overwrite)
        video = shlex.join(["stream-seg", "run", source, f"{target}.mp4"])
        note = f"no OUTPUT: writes label maps to {target}/, dark to the eye; to look at: {video}"
        return Arguments(source, [f"{target}/"], note=note)
    return _watch(source)


def _watch(source: str) -> Arguments:
    if _has_screen():
        return Arguments(source, ["window"], note="no OUTPUT: shows a window; q quits")
    return Arguments(source, [PAGE], note="no OUTPUT and no screen: shows a page")


def _place(path: Path, *, overwrite: bool) -> Path:
    """Return the path, or one in the working directory where its folder is read-only, that replaces nothing."""
    if not os.access(path.parent, os.W_OK):
        path = Path(path.name)
    return path if overwrite else free_path(path)


def _name_folder(images: Path) -> Path:
    """Return a folder for the label maps of a folder, a glob or a file of images. Raises ConfigError for a ** glob."""
    if images.is_dir():
        folder = images if images.name else Path(os.path.abspath(images))
        return folder.with_name(f"{folder.name}_seg")
    if images.exists() or not glob.has_magic(str(images)):
        return images.with_name(f"{images.stem}_seg")
    folder, pattern = images.parent, images.name
    if glob.has_magic(str(folder)):  # the next run would take the label maps for images
        raise ConfigError(f"{images}: name an OUTPUT outside the folders that the pattern matches, such as ../labels/")
    prefix = re.split(r"[*?\[]", pattern)[0].strip(" ._-") or "images"
    return folder / f"{prefix}_seg"


def _has_screen() -> bool:
    from stream_seg.stages.show import require_display

    try:
        require_display()
    except OutputError:
        return False
    return True


def refuse_further_inputs(source: str, outputs: Sequence[str], *, overwrite: bool = False) -> None:
    """Raise an error if a shell expanded a pattern into several inputs, of which those after the first are OUTPUTs.

    Files that no output writes are inputs (ConfigError). So are videos that exist, unless `overwrite` is set and there
    is one of them (OutputError: a run would replace them).
    """
    present = [output for output in outputs if os.path.isfile(output)]
    written = [output for output in present if _is_output(output)]
    videos = [output for output in written if Path(output).suffix.lower() in VIDEO_SUFFIXES]
    if overwrite and len(videos) == 1:
        videos = []
    further = [output for output in present if output in videos or output not in written]
    if not further or not os.path.isfile(source) or os.path.samefile(source, further[0]):
        return
    advice = _advise([source, *further], [output for output in outputs if output not in further])
    if further == videos and len(videos) == 1:
        problem = f"cannot write {further[0]}: the file exists; choose another name, or overwrite it with --overwrite"
        advice = f"if it is another input, {advice}"
    else:
        verb = "exists" if len(further) == 1 else "exist"
        problem = (
            f"{_list(further, separator=', ')} {verb}, but a run has one INPUT, and the names after it are OUTPUTs"
        )
        advice += "; --overwrite replaces one video" if videos else ""
    raise (OutputError if videos else ConfigError)(redact_secrets(f"{problem}; {advice}"))


def _advise(names: Sequence[str], outputs: Sequence[str]) -> str:
    """Return the command that segments all these inputs into `outputs`."""
    if all(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in names):
        pattern = _pattern(names) or "*" + Path(names[0]).suffix
        return f'quote the pattern of several images: stream-seg run "{pattern}" {shlex.join(outputs or ["masks/"])}'
    folder = next((f' "{output.rstrip("/")}/$(basename "$f")/"' for output in outputs if output.endswith("/")), "")
    return f'start a run for each: for f in {_pattern(names) or _list(names)}; do stream-seg run "$f"{folder}; done'


def _is_output(text: str) -> bool:
    from stream_seg.config.overrides import match_argument

    try:
        match_argument("output", text)
    except ConfigError:
        return False
    return True


def _pattern(names: Sequence[str]) -> str | None:
    """Return the glob pattern that matches these files and no others; None if there is none that is simple."""
    suffixes = {Path(name).suffix for name in names}
    prefix = os.path.commonprefix([str(Path(name).with_suffix("")) for name in names])  # noqa: RUF071 - of characters
    pattern = f"{prefix}*{min(suffixes)}"
    plain = len(suffixes) == 1 and re.fullmatch(r"[\w./*-]+", pattern)
    return pattern if plain and {*glob.glob(pattern)} == {*names} else None


def _list(names: Sequence[str], *, separator: str = " ") -> str:
    shown = [shlex.quote(name) for name in names[:MANY]]
    return separator.join([*shown, "..."] if len(names) > MANY else shown)
