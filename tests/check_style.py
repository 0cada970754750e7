"""Check the package's English: how docstrings begin, and names that are participles used as nouns.

python tests/check_style.py [PATH ...]    # prints each fault as FILE:LINE: TEXT, exit code 1 if there are any
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "stream_seg"
OPENERS = ("What", "Whether", "How", "Where", "Who", "Which", "Whose")
"""A docstring is an imperative sentence; none of these begins one."""
NAMES = frozenset(
    (
        "said",
        "told",
        "found",
        "held",
        "asked",
        "given",
        "kept",
        "settled",
        "chosen",
        "agreed",
        "believed",
        "heard",
        "judged",
        "wanted",
        "drawn",
        "lasting",
        "rung",
        "verdict",
        "ears",
        "earshot",
        "darkroom",
        "door",
        "card",
        "cards",
        "opened_with",
        "books",
        "tally",
        "tallies",
    )
)
"""Not bound anywhere, in any case: participles as nouns, and names that the field does not know."""

Fault = tuple[int, str]


def main(paths: list[Path]) -> int:
    """Print every fault in the Python files at or below `paths`. Return the exit code."""
    count = 0
    for path in paths:
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            for line, text in sorted(faults(ast.parse(file.read_text(encoding="utf-8")))):
                print(f"{file}:{line}: {text}")
                count += 1
    return 1 if count else 0


def faults(tree: ast.Module) -> Iterator[Fault]:
    """Yield (line, text) of each fault of a module."""
    for node in ast.walk(tree):
        for line, text in docstrings(node):
            opener = text.split(maxsplit=1)[0].strip(",:;") if text.strip() else ""
            if opener in OPENERS:
                yield line, f"docstring begins with {opener!r}; write an imperative sentence"
        for name in bound_names(node):
            if name.lower().strip("_") in NAMES:
                yield getattr(node, "lineno", 1), f"name {name!r}; use the field's noun or verb"


def docstrings(node: ast.AST) -> Iterator[Fault]:
    """Yield (line, text) of the docstring of a module, class or function, and of strings below assignments."""
    for statement in getattr(node, "body", []) if not isinstance(node, ast.Lambda | ast.IfExp) else []:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            text = statement.value.value
            if isinstance(text, str):
                yield statement.lineno, text


def bound_names(node: ast.AST) -> Iterator[str]:
    """Yield the names that a node binds: variables, attributes, parameters, functions, classes, imports."""
    if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
        yield node.id if isinstance(node, ast.Name) else node.attr
    elif isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.alias):
        yield node.asname or node.name
    elif isinstance(node, ast.ExceptHandler) and node.name:
        yield node.name


if __name__ == "__main__":
    sys.exit(main([Path(path) for path in sys.argv[1:]] or [PACKAGE]))
