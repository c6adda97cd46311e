"""The design's table of rules names tests that exist, for every rule."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
RULES = [
    f"{letter}{number}"
    for letter, last in (("J", 7), ("C", 2), ("L", 6), ("D", 3))
    for number in range(1, last + 1)
]


def rows() -> dict[str, list[str]]:
    """The tests that the table names, by rule."""
    text = (ROOT / "docs/design.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| ([JCLD]\d) \| (.+) \|$", text, re.MULTILINE)
    return {rule: re.findall(r"`([^`]+)`", tests) for rule, tests in found}


def exists(name: str) -> bool:
    """Whether there is a test function of this name."""
    path, _, function = name.partition("::")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return any(isinstance(node, ast.FunctionDef) and node.name == function for node in ast.walk(tree))


def test_each_rule_has_its_tests() -> None:
    """A rule without a test is a wish."""
    table = rows()
    assert list(table) == RULES
    assert {rule: [name for name in names if not exists(name)] for rule, names in table.items()} == {
        rule: [] for rule in RULES
    }
    assert all(table.values())
