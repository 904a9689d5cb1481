"""Figures of the house: how large the package is, and how long its functions are; ``python benchmarks/house.py``.

Give the root of another checkout to see its figures beside: ``python benchmarks/house.py ../before .``
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections import Counter
from pathlib import Path

PACKAGE = "monai_unetpp"
Function = ast.FunctionDef | ast.AsyncFunctionDef

_LONG, _TOO_LONG, _LARGE_FILE = 60, 100, 600


def main(roots: list[str]) -> None:
    """Print the table of figures, a column per checkout."""
    found = [figures(Path(root)) for root in roots]
    names = list(dict.fromkeys(name for each in found for name in each))
    print(f"| | {' | '.join(roots)} |")
    print(f"| --- |{' ---: |' * len(roots)}")
    for name in names:
        print(f"| {name} | {' | '.join(each.get(name, '-') for each in found)} |")


def figures(root: Path) -> dict[str, str]:
    """What the table holds of one checkout, by the name of the row."""
    sources = {path: path.read_text(encoding="utf-8") for path in sorted((root / PACKAGE).rglob("*.py"))}
    trees = {path: ast.parse(source) for path, source in sources.items()}
    functions = {
        f"{path.relative_to(root / PACKAGE)}:{node.lineno} {node.name}": node
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, Function)
    }
    lengths = Counter({name: _length(node) for name, node in functions.items()})
    parameters = Counter({name: _parameters(node) for name, node in functions.items()})
    lines = {path: len(source.splitlines()) for path, source in sources.items()}
    names = Counter(path.name for path in sources if path.name != "__init__.py")
    (longest, length), (widest, width) = lengths.most_common(1)[0], parameters.most_common(1)[0]
    return {
        "modules": str(len(sources)),
        "lines": f"{sum(lines.values()):,}",
        "lines of code": f"{sum(_code_lines(sources[path], tree) for path, tree in trees.items()):,}",
        "functions": str(len(functions)),
        "mean length of a function": f"{statistics.fmean(lengths.values()):.1f}",
        f"functions over {_LONG} lines": str(sum(each > _LONG for each in lengths.values())),
        f"functions over {_TOO_LONG} lines": str(sum(each > _TOO_LONG for each in lengths.values())),
        "longest function": f"{length} ({longest})",
        "most parameters": f"{width} ({widest})",
        f"files over {_LARGE_FILE} lines": str(sum(count > _LARGE_FILE for count in lines.values())),
        "file names that recur": ", ".join(f"{name} {n}" for name, n in sorted(names.items()) if n > 1) or "none",
        **{f"lines of {room}": f"{count:,}" for room, count in _rooms(root, lines)},
    }


def _rooms(root: Path, lines: dict[Path, int]) -> list[tuple[str, int]]:
    rooms: Counter[str] = Counter()
    for path, count in lines.items():
        inside = path.relative_to(root / PACKAGE)
        rooms[inside.parts[0] if len(inside.parts) > 1 else "the root"] += count
    return rooms.most_common()


def _length(function: Function) -> int:
    """Lines from the signature to the end of the body, the docstring among them."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def _parameters(function: Function) -> int:
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    return len(named) - (bool(named) and named[0].arg in ("self", "cls"))


def _code_lines(source: str, tree: ast.Module) -> int:
    """Number of lines that are not blank and hold neither a comment alone nor a docstring."""
    written = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    lines = enumerate(map(str.strip, source.splitlines()), start=1)
    return sum(bool(text) and not text.startswith("#") and number not in written for number, text in lines)


if __name__ == "__main__":
    main(sys.argv[1:] or ["."])
