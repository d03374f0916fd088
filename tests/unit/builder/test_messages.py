"""Every failure that a stage explains says what happened and, after one semicolon, what to do."""

import ast
from collections.abc import Iterator
from pathlib import Path

import engine_builder

_SOURCES = sorted(Path(engine_builder.__file__).parent.rglob("*.py"))


def _failures() -> Iterator[tuple[str, str]]:
    """Place and fixed words of each StageError that is given its words on the spot."""
    for path in _SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            if node.func.id in ("StageError", "defect") and len(node.args) == 2:
                words = "".join(
                    str(part.value) for part in ast.walk(node.args[1])
                    if isinstance(part, ast.Constant)
                )  # fmt: skip
                if words:
                    remedy = "; " if node.func.id == "defect" else ""
                    yield f"{path.name}:{node.lineno}", words + remedy


def test_each_failure_has_one_remedy() -> None:
    failures = dict(_failures())
    assert len(failures) > 30
    assert {place: words for place, words in failures.items() if words.count("; ") != 1} == {}
