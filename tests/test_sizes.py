"""Files and functions stay small enough to read."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "fieldmark"


def test_no_file_is_longer_than_400_lines_and_no_function_than_60() -> None:
    too_long = []
    files = sorted(SOURCE.rglob("*.py"))
    for path in files:
        text = path.read_text()
        if (lines := text.count("\n")) > 400:
            too_long.append(f"{path.relative_to(SOURCE)}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > 60:
                    too_long.append(f"{path.relative_to(SOURCE)}: {node.name}, {lines} lines")
    assert len(files) > 200
    assert not too_long
